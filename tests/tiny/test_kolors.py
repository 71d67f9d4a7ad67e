"""Kolors on its small checkpoint: the pictures of diffusers' pipeline, alone and among others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import KolorsPipeline

from pipelines.demo.checkpoints import kolors as demo
from pipelines.denoising.step import advance
from pipelines.errors import InvalidInput
from pipelines.families.kolors import Kolors
from pipelines.request import Lora, PriorTextToImage, SchedulerChoice, TextToImage
from pipelines.weights.manifest import Manifest
from tests.drawing import array, digests, draw, draw_alone, draw_arriving, finish, open_family
from tests.drawing import reference as plain_pipeline

CPU = torch.device("cpu")
LARGEST_SEED = 2**64 - 1

SDE_KARRAS = SchedulerChoice(
    name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
)
SCHEDULERS = (
    SchedulerChoice(name="EulerDiscreteScheduler"),
    SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    SchedulerChoice(name="DPMSolverMultistepScheduler"),
    SDE_KARRAS,
    SchedulerChoice(name="UniPCMultistepScheduler"),
    SchedulerChoice(name="DEISMultistepScheduler"),
)
every_scheduler = pytest.mark.parametrize(
    "scheduler", SCHEDULERS, ids=lambda choice: f"{choice.name} {choice.algorithm_type or ''}".strip()
)


@pytest.fixture(scope="module")
def reference(random_manifest: Manifest) -> KolorsPipeline:
    return plain_pipeline(KolorsPipeline, random_manifest, "kolors")


def draw_with_diffusers(reference: KolorsPipeline, wanted: TextToImage) -> list[np.ndarray]:
    """The plain calls that a request stands for; its sizes are multiples of 8."""
    own = reference.scheduler
    changes = {
        option: value
        for option in ("algorithm_type", "use_karras_sigmas")
        if (value := getattr(wanted.scheduler, option)) is not None
    }
    name = wanted.scheduler.name or type(own).__name__
    reference.scheduler = getattr(diffusers, name).from_config(own.config, **changes)
    try:
        return [
            np.asarray(
                reference(
                    wanted.prompt,
                    negative_prompt=wanted.negative_prompt,
                    height=wanted.height,
                    width=wanted.width,
                    num_inference_steps=wanted.num_inference_steps,
                    guidance_scale=wanted.guidance_scale,
                    generator=torch.Generator().manual_seed(seed),
                ).images[0]
            )
            for seed in wanted.seeds
        ]
    finally:
        reference.scheduler = own


@pytest.fixture(scope="module")
def kolors(random_manifest: Manifest) -> Kolors:
    return open_family(random_manifest, "kolors")


def request(**changes: Any) -> TextToImage:
    return TextToImage(
        **{
            "pipeline": "kolors",
            "prompt": "a red cat",
            "negative_prompt": "",
            "width": 128,
            "height": 64,
            "num_inference_steps": 5,
            "guidance_scale": 6.0,
            "seeds": (7,),
            "scheduler": SCHEDULERS[0],
            **changes,
        }
    )


@every_scheduler
@pytest.mark.parametrize("steps", [1, 6])
def test_a_picture_drawn_alone_equals_diffusers_byte_for_byte(
    kolors: Kolors, reference: KolorsPipeline, scheduler: SchedulerChoice, steps: int
) -> None:
    wanted = request(scheduler=scheduler, num_inference_steps=steps)
    [drawn] = draw_alone(kolors, wanted)
    [expected] = draw_with_diffusers(reference, wanted)
    np.testing.assert_array_equal(drawn, expected)
    assert drawn.std() > 10


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"prompt": "一只红色的猫", "negative_prompt": "模糊"}, id="Chinese"),
        pytest.param({"negative_prompt": "blurry"}, id="negative prompt"),
        pytest.param({"guidance_scale": 1.0}, id="guidance 1"),
        pytest.param({"guidance_scale": 0.5}, id="guidance below 1"),
        pytest.param({"guidance_scale": 0.0}, id="guidance 0"),
        pytest.param({"guidance_scale": 20.0}, id="guidance 20"),
        pytest.param({"seeds": (0, LARGEST_SEED, 441234134)}, id="several seeds"),
        pytest.param({"prompt": "word " * 120}, id="longer than the text encoder reads"),
        pytest.param({"width": 104, "height": 200}, id="latents of odd size"),
        pytest.param({"scheduler": SchedulerChoice()}, id="the checkpoint's own scheduler"),
    ],
)
def test_whatever_is_asked_equals_diffusers_byte_for_byte(
    kolors: Kolors, reference: KolorsPipeline, changes: dict[str, Any]
) -> None:
    wanted = request(**changes)
    expected = draw_with_diffusers(reference, wanted)
    for drawn, plain in zip(draw_alone(kolors, wanted), expected, strict=True):
        np.testing.assert_array_equal(drawn, plain)


def test_what_chatglm_does_not_read_is_named_and_changes_nothing(kolors: Kolors) -> None:
    fits = " ".join("a" * 127)
    (whole,) = draw(kolors, request(prompt=fits, negative_prompt=fits))
    (cut,) = draw(kolors, request(prompt=f"{fits} zebra", negative_prompt=f"{fits} 雨"))
    assert cut.image == whole.image
    assert whole.warnings == ()
    assert cut.warnings == (
        'prompt: ChatGLM reads only its first 256 tokens; what begins with "zebra" is left out',
        'negative_prompt: ChatGLM reads only its first 256 tokens; what begins with "雨" is left out',
    )


def test_a_negative_prompt_that_is_not_read_at_all_is_not_said_to_be_cut(kolors: Kolors) -> None:
    (picture,) = draw(kolors, request(negative_prompt="rain " * 200, guidance_scale=1.0))
    assert picture.warnings == ()


def test_the_noise_schedule_is_that_of_the_original(kolors: Kolors, reference: KolorsPipeline) -> None:
    config = reference.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("scaled_linear", 0.00085, 0.014)
    assert (config.num_train_timesteps, config.timestep_spacing) == (1100, "leading")
    for scheduler in SCHEDULERS[:2]:
        [sample] = kolors.encode(request(scheduler=scheduler, num_inference_steps=25))
        assert int(sample.sampler.timestep) == 24 * (1100 // 25) + config.steps_offset


def test_a_picture_is_the_same_among_others_that_come_and_go(kolors: Kolors) -> None:
    euler, ancestral, dpm, sde, unipc, deis = SCHEDULERS
    arrivals = [
        (0, request(prompt="a red cat", scheduler=euler, num_inference_steps=14, seeds=(1,))),
        (0, request(prompt="一只狗", scheduler=ancestral, num_inference_steps=3, seeds=(2,))),
        (1, request(prompt="a house", scheduler=dpm, num_inference_steps=7, guidance_scale=2.5, seeds=(3,))),
        (2, request(prompt="a tree", scheduler=sde, num_inference_steps=6, guidance_scale=9.0, seeds=(4,))),
        (4, request(prompt="a boat", scheduler=unipc, num_inference_steps=5, guidance_scale=1.0, seeds=(5,))),
        (
            7,
            request(prompt="鱼", scheduler=deis, num_inference_steps=4, negative_prompt="水", seeds=(6,)),
        ),
        (9, request(prompt="late", scheduler=euler, num_inference_steps=1, guidance_scale=0.5, seeds=(7,))),
    ]
    together, turns = draw_arriving(kolors, arrivals)
    assert len({key for turn in turns for key in turn}) == 1
    crowd = [len(turn) for turn in turns]
    assert max(crowd) >= 4
    assert sum(crowd) > 2 * len(crowd)
    for (_, wanted), [among] in zip(arrivals, together, strict=True):
        [alone] = draw_alone(kolors, wanted)
        assert np.abs(among.astype(int) - alone).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(200, 140), (129, 65), (1000, 700)])
def test_any_size_is_drawn_at_the_next_multiple_of_8_and_cropped(
    kolors: Kolors, reference: KolorsPipeline, width: int, height: int
) -> None:
    asked = request(width=width, height=height, num_inference_steps=2)
    drawn_size = request(width=-(-width // 8) * 8, height=-(-height // 8) * 8, num_inference_steps=2)
    [drawn] = draw_alone(kolors, asked)
    [whole] = draw_with_diffusers(reference, drawn_size)
    assert drawn.shape == (height, width, 3)
    np.testing.assert_array_equal(drawn, whole[:height, :width])
    assert drawn.std() > 10


def test_sizes_that_are_drawn_alike_share_a_group(kolors: Kolors) -> None:
    keys = [kolors.encode(request(width=1000, height=height))[0].key for height in (700, 704, 712)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "一只红色的猫"},
        {"negative_prompt": "模糊"},
        {"guidance_scale": 12.0},
        {"seeds": (8,)},
        {"scheduler": SDE_KARRAS},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_request_says_changes_the_picture(kolors: Kolors, changes: dict[str, Any]) -> None:
    [usual] = draw_alone(kolors, request())
    [changed] = draw_alone(kolors, request(**changes))
    assert usual.std() > 10
    assert changed.std() > 10
    assert np.abs(usual.astype(int) - changed).mean() > 1


def test_chinese_prompts_are_told_apart(kolors: Kolors) -> None:
    [cat], [dog] = draw_alone(kolors, request(prompt="猫")), draw_alone(kolors, request(prompt="狗"))
    assert np.abs(cat.astype(int) - dog).mean() > 1


def test_no_negative_prompt_means_an_empty_one(kolors: Kolors) -> None:
    [none], [empty] = draw_alone(kolors, request(negative_prompt=None)), draw_alone(kolors, request())
    np.testing.assert_array_equal(none, empty)


def test_a_repeated_text_is_not_encoded_again(random_manifest: Manifest) -> None:
    kolors = open_family(random_manifest, "kolors")
    calls: list[str] = []
    kolors.modules["text_encoder"].register_forward_hook(lambda *_: calls.append("text"))
    kolors.encode(request())
    assert len(calls) == 2
    kolors.encode(request(seeds=(8, 9), width=256, guidance_scale=2.0))
    assert len(calls) == 2
    kolors.encode(request(prompt="a green dog"))
    assert len(calls) == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_scheduler
def test_half_precision_stays_half_precision_and_draws(
    random_manifest: Manifest, scheduler: SchedulerChoice, dtype: str
) -> None:
    kolors = open_family(random_manifest, "kolors", dtype=dtype)
    kept = getattr(torch, dtype)
    [sample] = kolors.encode(request(scheduler=scheduler, num_inference_steps=3))
    with torch.no_grad():
        while not sample.sampler.done:
            assert sample.latents.dtype == kept
            advance([sample])
    assert array(finish(sample).image).std() > 10
    assert {parameter.dtype for parameter in kolors.modules["vae"].parameters()} == {kept}


def test_a_float16_vae_decodes_in_float32_as_its_configuration_asks(random_manifest: Manifest) -> None:
    kolors = open_family(random_manifest, "kolors", dtype="float16")
    vae = kolors.modules["vae"]
    entered: list[torch.dtype] = []
    vae.get_submodule("decoder").register_forward_pre_hook(lambda _, given: entered.append(given[0].dtype))
    draw_alone(kolors, request(num_inference_steps=1))
    assert entered == [torch.float32]


@pytest.mark.parametrize(
    "changes",
    [
        {"loras": (Lora(name="more_details"),)},
        {"embeddings": ("charturner",)},
        {"vae": "another"},
        {"clip_skip": 2},
        {"token_merging_ratio": 0.5},
        {"self_attention": True},
        {"panorama": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_no_kolors_checkpoint_draws_is_refused_by_name(kolors: Kolors, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        kolors.encode(request(**changes))
    assert refused.value.field == next(iter(changes))


def test_a_request_of_another_kind_is_refused(kolors: Kolors) -> None:
    wrong = PriorTextToImage(
        pipeline="kolors",
        prompt="a red cat",
        width=64,
        height=64,
        num_inference_steps=2,
        prior_num_inference_steps=2,
        guidance_scale=4.0,
        prior_guidance_scale=4.0,
        seeds=(1,),
    )
    with pytest.raises(InvalidInput, match="prior_text_to_image cannot be drawn by kolors"):
        kolors.encode(wrong)


def test_an_unknown_scheduler_is_refused(kolors: Kolors) -> None:
    with pytest.raises(InvalidInput, match="scheduler"):
        kolors.encode(request(scheduler=SchedulerChoice(name="NoScheduler")))


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        demo.build(folder)
    first, second = map(digests, folders)
    assert first == second
    assert "kolors/tokenizer/tokenizer.model" in first
