"""Kandinsky 2.2 on its small checkpoint: the pictures of diffusers' two pipelines, alone and among others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, KandinskyV22Pipeline, KandinskyV22PriorPipeline

from pipelines.denoising.sample import Sample
from pipelines.denoising.step import advance
from pipelines.errors import InvalidInput
from pipelines.families.kandinsky22 import Kandinsky22
from pipelines.request import PriorTextToImage, TextToImage
from pipelines.weights.manifest import Manifest
from tests.drawing import digests, draw, draw_alone, draw_arriving, open_family
from tests.random_checkpoints import kandinsky22 as random_kandinsky22

CPU = torch.device("cpu")
LARGEST_SEED = 2**64 - 1


class Diffusers:
    """The plain calls that a request stands for."""

    def __init__(self, folder: Path) -> None:
        self.prior = KandinskyV22PriorPipeline.from_pretrained(folder / "prior")
        self.decoder = KandinskyV22Pipeline.from_pretrained(folder / "decoder")
        for pipeline in (self.prior, self.decoder):
            pipeline.set_progress_bar_config(disable=True)

    def draw(self, request: PriorTextToImage) -> list[np.ndarray]:
        pictures: list[np.ndarray] = []
        for seed in request.seeds:
            generator = torch.Generator().manual_seed(seed)
            embedded = self.prior(
                request.prompt,
                negative_prompt=request.negative_prompt,
                num_inference_steps=request.prior_num_inference_steps,
                guidance_scale=request.prior_guidance_scale,
                generator=generator,
            )
            drawn = self.decoder(
                image_embeds=embedded.image_embeds,
                negative_image_embeds=embedded.negative_image_embeds,
                height=request.height,
                width=request.width,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                generator=generator,
            )
            pictures.append(np.asarray(drawn.images[0]))
        return pictures


@pytest.fixture(scope="module")
def folder(random_manifest: Manifest) -> Path:
    return random_manifest.path.parent / "kandinsky22"


@pytest.fixture(scope="module")
def diffusers(folder: Path) -> Diffusers:
    return Diffusers(folder)


@pytest.fixture(scope="module")
def kandinsky(random_manifest: Manifest) -> Kandinsky22:
    return open_family(random_manifest, "kandinsky-2-2")


def request(**changes: Any) -> PriorTextToImage:
    return PriorTextToImage(
        **{
            "pipeline": "kandinsky-2-2",
            "prompt": "a red cat",
            "width": 128,
            "height": 64,
            "num_inference_steps": 4,
            "prior_num_inference_steps": 3,
            "guidance_scale": 4.0,
            "prior_guidance_scale": 4.0,
            "seeds": (7,),
            **changes,
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="no negative prompt"),
        pytest.param({"negative_prompt": "blurry"}, id="negative prompt"),
        pytest.param({"negative_prompt": ""}, id="empty negative prompt"),
        pytest.param({"prior_num_inference_steps": 25}, id="25 prior steps"),
        pytest.param({"prior_num_inference_steps": 2, "num_inference_steps": 7}, id="other steps"),
        pytest.param({"seeds": (0, LARGEST_SEED, 98877465625)}, id="several seeds"),
        pytest.param({"prior_guidance_scale": 0.5}, id="prior without guidance"),
        pytest.param({"prior_guidance_scale": 0.5, "negative_prompt": "blurry"}, id="that with a negative"),
        pytest.param({"guidance_scale": 0.5}, id="decoder without guidance"),
        pytest.param({"guidance_scale": 9.5, "prior_guidance_scale": 2.5}, id="other guidance"),
        pytest.param({"prompt": "word " * 90}, id="longer than the text encoder reads"),
        pytest.param({"prompt": "红色的猫"}, id="Chinese"),
    ],
)
def test_a_picture_drawn_alone_equals_diffusers_byte_for_byte(
    kandinsky: Kandinsky22, diffusers: Diffusers, changes: dict[str, Any]
) -> None:
    wanted = request(**changes)
    for drawn, expected in zip(draw_alone(kandinsky, wanted), diffusers.draw(wanted), strict=True):
        np.testing.assert_array_equal(drawn, expected)


def test_what_the_prior_does_not_read_is_named_and_changes_nothing(kandinsky: Kandinsky22) -> None:
    fits = "abc " * 25
    (whole,) = draw(kandinsky, request(prompt=fits, negative_prompt=fits))
    (cut,) = draw(kandinsky, request(prompt=fits + "a zebra", negative_prompt=fits + "rain"))
    assert cut.image == whole.image
    assert whole.warnings == ()
    assert cut.warnings == (
        'prompt: CLIP reads only its first 77 tokens; what begins with "a zebra" is left out',
        'negative_prompt: CLIP reads only its first 77 tokens; what begins with "rain" is left out',
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        DDPMScheduler(beta_schedule="linear", variance_type="fixed_small"),
        DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range"),
        DDIMScheduler(beta_schedule="linear"),
    ],
    ids=lambda scheduler: f"{type(scheduler).__name__} {scheduler.config.get('variance_type', '')}",
)
def test_the_checkpoints_own_decoder_scheduler_draws(
    folder: Path, diffusers: Diffusers, scheduler: DDPMScheduler | DDIMScheduler
) -> None:
    own = Diffusers(folder)
    own.decoder.scheduler = scheduler
    [drawn] = draw_alone(Kandinsky22(own.prior, own.decoder, CPU), request())
    [expected] = own.draw(request())
    np.testing.assert_array_equal(drawn, expected)
    assert drawn.std() > 10
    assert not np.array_equal(drawn, diffusers.draw(request())[0])


def test_a_picture_is_the_same_among_others_that_come_and_go(kandinsky: Kandinsky22) -> None:
    arrivals = [
        (0, request(prompt="a red cat", num_inference_steps=12, prior_num_inference_steps=9)),
        (0, request(prompt="a dog", negative_prompt="blurry", prior_num_inference_steps=3, seeds=(1, 2))),
        (2, request(prompt="a house", guidance_scale=1.0, prior_guidance_scale=7.0, seeds=(3,))),
        (3, request(prompt="a tree", guidance_scale=8.0, prior_guidance_scale=1.0, seeds=(4,))),
        (5, request(prompt="a boat", negative_prompt="", num_inference_steps=6, seeds=(5, 6))),
        (9, request(prompt="a late fish", prior_num_inference_steps=2, num_inference_steps=3, seeds=(7,))),
    ]
    together, turns = draw_arriving(kandinsky, arrivals)
    stages = [{key.stage for key in turn} for turn in turns]
    assert {"prior", "denoise"} in stages
    for (_, wanted), pictures in zip(arrivals, together, strict=True):
        for among, alone in zip(pictures, draw_alone(kandinsky, wanted), strict=True):
            assert np.abs(among.astype(int) - alone).max() <= 1


def test_every_seed_of_a_request_draws_its_own_picture(kandinsky: Kandinsky22) -> None:
    first, second = draw_alone(kandinsky, request(seeds=(1, 2)))
    assert np.abs(first.astype(int) - second).mean() > 5
    np.testing.assert_array_equal(first, draw_alone(kandinsky, request(seeds=(1,)))[0])
    np.testing.assert_array_equal(second, draw_alone(kandinsky, request(seeds=(2,)))[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a green dog"},
        {"negative_prompt": "blurry"},
        {"guidance_scale": 8.0},
        {"prior_guidance_scale": 8.0},
        {"prior_num_inference_steps": 8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_request_says_changes_the_picture(kandinsky: Kandinsky22, changes: dict[str, Any]) -> None:
    [usual] = draw_alone(kandinsky, request())
    [changed] = draw_alone(kandinsky, request(**changes))
    assert usual.std() > 10
    assert changed.std() > 10
    assert np.abs(usual.astype(int) - changed).mean() > 1


def test_a_prior_of_one_step_draws_a_picture(kandinsky: Kandinsky22) -> None:
    wanted = request(prior_num_inference_steps=1)
    [sample] = kandinsky.encode(wanted)
    assert sample.sampler.total == 1
    [drawn] = draw_alone(kandinsky, wanted)
    assert drawn.std() > 10
    [other] = draw_alone(kandinsky, request(prior_num_inference_steps=1, prompt="a green dog"))
    assert np.abs(drawn.astype(int) - other).mean() > 1


def test_other_sizes_are_drawn_at_the_next_multiple_of_64_and_cropped(
    kandinsky: Kandinsky22, diffusers: Diffusers
) -> None:
    wanted = request(width=70, height=100)
    [drawn] = draw_alone(kandinsky, wanted)
    [whole] = diffusers.draw(wanted)
    assert whole.shape == (128, 128, 3)
    assert drawn.shape == (100, 70, 3)
    np.testing.assert_array_equal(drawn, whole[:100, :70])


def test_progress_counts_the_evaluations_of_both_stages(kandinsky: Kandinsky22) -> None:
    [prior] = kandinsky.encode(request(prior_num_inference_steps=3, num_inference_steps=5))
    assert (prior.evaluations_before, prior.sampler.total, prior.evaluations_after) == (0, 3, 5)
    with torch.no_grad():
        while not prior.sampler.done:
            advance([prior])
    decoder = prior.finish(prior)
    assert isinstance(decoder, Sample)
    assert (decoder.evaluations_before, decoder.sampler.total, decoder.evaluations_after) == (3, 5, 0)


def test_a_repeated_prompt_is_not_encoded_again(random_manifest: Manifest) -> None:
    kandinsky = open_family(random_manifest, "kandinsky-2-2")
    calls: list[str] = []
    kandinsky.modules["prior.text_encoder"].register_forward_hook(lambda *_: calls.append("text"))
    kandinsky.encode(request())
    once = len(calls)
    kandinsky.encode(request(seeds=(8, 9), width=256, guidance_scale=2.0))
    assert once > 0
    assert len(calls) == once
    kandinsky.encode(request(negative_prompt="blurry"))
    assert len(calls) > once


def test_half_precision_stays_half_precision_and_draws(random_manifest: Manifest) -> None:
    kandinsky = open_family(random_manifest, "kandinsky-2-2", dtype="bfloat16")
    [sample] = kandinsky.encode(request())
    assert sample.latents.dtype == torch.bfloat16
    [drawn] = draw_alone(kandinsky, request())
    assert drawn.std() > 10


def test_a_request_of_another_kind_is_refused(kandinsky: Kandinsky22) -> None:
    wrong = TextToImage(
        pipeline="kandinsky-2-2",
        prompt="a red cat",
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=4.0,
        seeds=(1,),
    )
    with pytest.raises(InvalidInput, match="text_to_image cannot be drawn by kandinsky-2-2"):
        kandinsky.encode(wrong)


def test_more_steps_than_the_noise_schedule_has_are_refused_before_drawing(kandinsky: Kandinsky22) -> None:
    with pytest.raises(InvalidInput, match="num_inference_steps"):
        kandinsky.encode(request(num_inference_steps=5000))


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        random_kandinsky22.build(folder)
    first, second = map(digests, folders)
    assert first == second
    assert "kandinsky22/decoder/unet/diffusion_pytorch_model.safetensors" in first
