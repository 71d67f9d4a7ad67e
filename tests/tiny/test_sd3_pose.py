"""SD3 with the pose ControlNet on a small checkpoint, beside diffusers' own pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3ControlNetPipeline
from PIL import Image

from pipelines.demo.world.figure import demo_skeleton
from pipelines.denoising import step
from pipelines.errors import AnnotatorMissing, InvalidInput
from pipelines.families.sd3_pose import StableDiffusion3Pose, control_seed
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice, TextToImage
from pipelines.schedulers.flow.diffusers_schedulers import (
    DIFFUSERS_SAMPLERS,
    FlowDPMSolver,
    FlowLCM,
    noise_scheduler,
)
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES, sigmas
from pipelines.weights.entries import Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    draw,
    draw_alone,
    draw_arriving,
    draw_images,
    finish,
    largest_difference,
    open_family,
)

PIPELINE = "sd3-medium-pose"


@pytest.fixture(scope="module")
def sd3(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion3Pose:
    return open_family(random_manifest, PIPELINE, weights=tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def diffusers_pipeline(sd3: StableDiffusion3Pose) -> StableDiffusion3ControlNetPipeline:
    return sd3._pipeline


def request(**changes: Any) -> PoseToImage:
    defaults = PoseToImage(
        pipeline=PIPELINE,
        prompt="a knight in a forest",
        negative_prompt="low quality,less details",
        image=demo_skeleton(128, 128),
        controlnet_conditioning_scale=0.8,
        width=128,
        height=128,
        num_inference_steps=4,
        guidance_scale=7.0,
        seeds=(7,),
        scheduler=SchedulerChoice(name="dpmpp_2m", sigma_schedule="sgm_uniform"),
    )
    return dataclasses.replace(defaults, **changes)


def test_dpm_adaptive_counts_each_time_that_the_network_was_asked(sd3: StableDiffusion3Pose) -> None:
    calls: list[None] = []
    handle = sd3.modules["transformer"].register_forward_pre_hook(lambda *_: calls.append(None))
    scheduler = SchedulerChoice(name="dpm_adaptive", sigma_schedule="simple")
    (sample,) = sd3.encode(request(num_inference_steps=2, guidance_scale=1.0, scheduler=scheduler))
    with torch.no_grad():
        while not sample.sampler.done:
            step.advance([sample])
    handle.remove()
    assert sample.sampler.position == sample.sampler.total == len(calls) > 6


class OwnGenerator:
    """Mixin: noise of the steps comes from the given generator; diffusers' SD3 pipeline passes none."""

    generator: torch.Generator

    def step(self, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        return parent.step(*args, **kwargs, generator=self.generator)


class OwnGeneratorDPMSolver(OwnGenerator, FlowDPMSolver):
    pass


class OwnGeneratorLCM(OwnGenerator, FlowLCM):
    pass


def draw_with_diffusers(pipeline: StableDiffusion3ControlNetPipeline, wanted: PoseToImage) -> RGBImage:
    """The plain pipeline call, with the pose's noise and the steps' noise where this project takes them."""
    (seed,) = wanted.seeds
    generator = torch.Generator("cpu").manual_seed(seed)
    levels = sigmas(wanted.scheduler.sigma_schedule or "normal", wanted.num_inference_steps)
    scheduler: Any = noise_scheduler(wanted.scheduler.name, levels)
    for stochastic in (OwnGeneratorDPMSolver, OwnGeneratorLCM):
        if isinstance(scheduler, stochastic.__mro__[2]):
            scheduler.__class__ = stochastic
            scheduler.generator = generator
    whole = StableDiffusion3ControlNetPipeline(**{**pipeline.components, "scheduler": scheduler})
    whole.set_progress_bar_config(disable=True)
    torch.manual_seed(control_seed(seed))
    picture = whole(
        wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        control_image=Image.frombytes("RGB", (wanted.image.width, wanted.image.height), wanted.image.pixels),
        controlnet_conditioning_scale=wanted.controlnet_conditioning_scale,
        height=wanted.height,
        width=wanted.width,
        num_inference_steps=wanted.num_inference_steps,
        guidance_scale=wanted.guidance_scale,
        generator=generator,
    ).images[0]
    return RGBImage(*picture.size, picture.tobytes())


@pytest.mark.parametrize("sampler", DIFFUSERS_SAMPLERS)
def test_a_picture_equals_the_one_of_diffusers_with_every_sampler_that_it_has(
    sd3: StableDiffusion3Pose, diffusers_pipeline: StableDiffusion3ControlNetPipeline, sampler: str
):
    wanted = request(scheduler=SchedulerChoice(name=sampler, sigma_schedule="sgm_uniform"))
    assert draw_images(sd3, wanted) == [draw_with_diffusers(diffusers_pipeline, wanted)]


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_a_picture_equals_the_one_of_diffusers_with_every_sigma_schedule(
    sd3: StableDiffusion3Pose, diffusers_pipeline: StableDiffusion3ControlNetPipeline, schedule: str
):
    wanted = request(num_inference_steps=7, scheduler=SchedulerChoice(name="uni_pc", sigma_schedule=schedule))
    assert draw_images(sd3, wanted) == [draw_with_diffusers(diffusers_pipeline, wanted)]


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"controlnet_conditioning_scale": 0.0},
        {"controlnet_conditioning_scale": 0.37},
        {"negative_prompt": None},
        {"negative_prompt": ""},
        {"width": 192, "height": 64},
        {"seeds": (2**64 - 1,)},
        {"num_inference_steps": 1},
        {"image": demo_skeleton(300, 500)},
    ],
    ids=str,
)
def test_a_picture_equals_the_one_of_diffusers_with_other_settings(
    sd3: StableDiffusion3Pose,
    diffusers_pipeline: StableDiffusion3ControlNetPipeline,
    changes: dict[str, Any],
):
    wanted = request(**changes)
    assert draw_images(sd3, wanted) == [draw_with_diffusers(diffusers_pipeline, wanted)]


def test_pictures_drawn_among_others_are_the_same(sd3: StableDiffusion3Pose):
    def choice(name: str, schedule: str) -> SchedulerChoice:
        return SchedulerChoice(name=name, sigma_schedule=schedule)

    requests = [
        request(num_inference_steps=9),
        request(prompt="a boat", seeds=(1, 2), controlnet_conditioning_scale=0.3, guidance_scale=1.0),
        request(num_inference_steps=2, guidance_scale=3.5, scheduler=choice("euler", "karras")),
        request(
            prompt="", seeds=(99,), scheduler=choice("heun", "simple"), controlnet_conditioning_scale=1.0
        ),
        request(seeds=(3,), num_inference_steps=5, scheduler=choice("dpmpp_2m_sde", "beta")),
        request(seeds=(4,), num_inference_steps=6, scheduler=choice("uni_pc_bh2", "ddim_uniform")),
        request(seeds=(5,), num_inference_steps=2, scheduler=choice("heunpp2", "beta")),
        request(seeds=(6,), num_inference_steps=3, scheduler=choice("dpmpp_sde", "karras")),
        request(seeds=(7,), num_inference_steps=4, scheduler=choice("lms", "normal"), guidance_scale=1.0),
        request(seeds=(8,), num_inference_steps=3, scheduler=choice("euler_ancestral_pp", "simple")),
        request(seeds=(9,), num_inference_steps=2, scheduler=choice("dpm_adaptive", "sgm_uniform")),
    ]
    together, turns = draw_arriving(sd3, enumerate(requests))
    assert len({key for turn in turns for key in turn}) == 1
    for wanted, pictures in zip(requests, together, strict=True):
        alone = draw_alone(sd3, wanted)
        assert len(pictures) == len(wanted.seeds)
        assert max(map(largest_difference, alone, pictures)) <= 1


def test_several_seeds_in_one_request_give_the_pictures_of_each_alone(sd3: StableDiffusion3Pose):
    wanted = request(seeds=(5, 6), scheduler=SchedulerChoice(name="dpmpp_2m_sde", sigma_schedule="karras"))
    both = draw_images(sd3, wanted)
    assert both == [*draw_images(sd3, request_of(wanted, 5)), *draw_images(sd3, request_of(wanted, 6))]
    assert both[0] != both[1]


def request_of(wanted: PoseToImage, seed: int) -> PoseToImage:
    return dataclasses.replace(wanted, seeds=(seed,))


def test_the_same_request_gives_the_same_picture_whatever_the_global_generator_does(
    sd3: StableDiffusion3Pose,
):
    first = draw_images(sd3, request())
    torch.randn(17)
    assert draw_images(sd3, request()) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a horse"},
        {"negative_prompt": "blue"},
        {"guidance_scale": 3.0},
        {"controlnet_conditioning_scale": 0.0},
        {"controlnet_conditioning_scale": 1.0},
        {"seeds": (8,)},
        {"scheduler": SchedulerChoice(name="euler", sigma_schedule="sgm_uniform")},
        {"scheduler": SchedulerChoice(name="dpmpp_2m", sigma_schedule="karras")},
    ],
    ids=str,
)
def test_every_field_has_an_effect(sd3: StableDiffusion3Pose, changes: dict[str, Any]):
    assert largest_difference(draw_alone(sd3, request())[0], draw_alone(sd3, request(**changes))[0]) > 1


def test_the_pose_has_no_effect_at_strength_zero(sd3: StableDiffusion3Pose):
    upside_down = RGBImage(128, 128, demo_skeleton(128, 128).pixels[::-1])
    poses = [demo_skeleton(128, 128), upside_down]
    faint = [draw_alone(sd3, request(image=pose, controlnet_conditioning_scale=0.0))[0] for pose in poses]
    strong = [draw_alone(sd3, request(image=pose, controlnet_conditioning_scale=1.0))[0] for pose in poses]
    np.testing.assert_array_equal(*faint)
    assert largest_difference(*strong) > 1


def test_a_size_that_the_network_cannot_draw_is_cropped(sd3: StableDiffusion3Pose):
    (picture,) = draw_images(sd3, request(width=100, height=90))
    assert (picture.width, picture.height) == (100, 90)


def test_a_picture_longer_than_the_position_embedding_is_refused(sd3: StableDiffusion3Pose):
    with pytest.raises(InvalidInput, match="no side of the result may be longer than 3072 pixels"):
        sd3.encode(request(width=64, height=4096))


@torch.no_grad()
def test_cfg_plus_plus_uses_the_negative_prompt_at_guidance_scale_one(sd3: StableDiffusion3Pose):
    def latents(sampler: str, negative_prompt: str) -> torch.Tensor:
        scheduler = SchedulerChoice(name=sampler, sigma_schedule="simple")
        wanted = request(
            guidance_scale=1.0, negative_prompt=negative_prompt, num_inference_steps=2, scheduler=scheduler
        )
        (sample,) = sd3.encode(wanted)
        step.advance([sample])
        return sample.latents

    assert not torch.equal(latents("euler_pp", "blue"), latents("euler_pp", "a horse"))
    assert torch.equal(latents("euler", "blue"), latents("euler", "a horse"))


def test_a_photograph_is_refused_when_the_manifest_has_no_annotator(sd3: StableDiffusion3Pose):
    grey = RGBImage(64, 64, bytes([127]) * 64 * 64 * 3)
    with pytest.raises(AnnotatorMissing) as refused:
        sd3.encode(request(image=grey))
    assert refused.value.field == "image"
    for words in ("no pose detector is installed", "annotator: {hub: lllyasviel/Annotators", "weights pull"):
        assert words in refused.value.problem


def test_skeletons_are_drawn_although_the_annotator_is_not_where_the_manifest_says(
    random_manifest: Manifest, sd3: StableDiffusion3Pose, tmp_path: Path
):
    entry = random_manifest.pipelines[PIPELINE]
    annotator = Source(hub="lllyasviel/Annotators", files=("body_pose_model.pth",))
    parts = {**entry.parts, "annotator": annotator}
    manifest = random_manifest.model_copy(
        update={"pipelines": {PIPELINE: entry.model_copy(update={"parts": parts})}}
    )
    never_pulled = open_family(manifest, PIPELINE, weights=tmp_path)
    wanted = request(num_inference_steps=1)
    assert draw_images(never_pulled, wanted) == draw_images(sd3, wanted)
    grey = RGBImage(64, 64, bytes([127]) * 64 * 64 * 3)
    with pytest.raises(AnnotatorMissing, match="image: is no picture of an OpenPose skeleton"):
        never_pulled.encode(request(image=grey))


def test_what_the_text_encoders_do_not_read_is_named(sd3: StableDiffusion3Pose):
    quick = {"num_inference_steps": 1, "negative_prompt": "abc " * 25}
    (whole,) = draw(sd3, request(prompt="abc " * 25, **quick))
    (longer,) = draw(sd3, request(prompt="abc " * 25 + "zebra", **quick))
    (cut,) = draw(sd3, request(prompt="abc " * 63 + "zebra", **quick))
    assert whole.warnings == ()
    assert longer.image != whole.image
    assert longer.warnings == (
        'prompt: CLIP reads only its first 77 tokens; what begins with "zebra" is left to T5',
    )
    by_clip, by_t5 = cut.warnings
    assert by_clip.startswith('prompt: CLIP reads only its first 77 tokens; what begins with "abc abc')
    assert by_t5 == 'prompt: T5 reads only its first 256 tokens; what begins with "zebra" is left out'


def test_a_negative_prompt_is_read_where_guidance_or_the_sampler_needs_it(sd3: StableDiffusion3Pose):
    def warned(**changes: Any) -> bool:
        samples = sd3.encode(request(negative_prompt="abc " * 30, num_inference_steps=1, **changes))
        return any("negative_prompt" in text for sample in samples for text in finish(sample).warnings)

    euler_pp = SchedulerChoice(name="euler_pp", sigma_schedule="simple")
    assert warned()
    assert warned(guidance_scale=1.0, scheduler=euler_pp)
    assert not warned(guidance_scale=1.0)


def test_another_kind_of_request_is_refused(sd3: StableDiffusion3Pose):
    wanted = TextToImage(
        pipeline=PIPELINE, prompt="", width=64, height=64, num_inference_steps=1, guidance_scale=1, seeds=(1,)
    )
    with pytest.raises(InvalidInput, match="text_to_image cannot be drawn by sd3-medium-pose"):
        sd3.encode(wanted)


def test_a_repeated_prompt_is_encoded_once(sd3: StableDiffusion3Pose):
    calls: list[int] = []
    text_encoder = sd3.modules["text_encoder_3"]
    counting = text_encoder.register_forward_hook(lambda *_: calls.append(1))
    sd3.encode(request(prompt="a prompt that is new", negative_prompt="and another", seeds=(1, 2, 3)))
    sd3.encode(request(prompt="and another", negative_prompt="a prompt that is new"))
    counting.remove()
    assert len(calls) == 2


def test_the_pool_sees_every_network_that_has_weights(sd3: StableDiffusion3Pose):
    components = sd3._pipeline.components.values()
    networks = {id(part) for part in components if isinstance(part, torch.nn.Module)}
    assert {id(module) for module in sd3.modules.values()} == networks


def test_the_small_checkpoint_is_built_from_the_same_bytes_every_time(tmp_path: Path):
    from pipelines.demo.checkpoints.sd3 import build

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        build(folder)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    )
    assert one == two
    assert Path("sd3_pose_controlnet/diffusion_pytorch_model.safetensors") in one
