"""SD1.5 on a small checkpoint: alone the plain pipeline's very bytes, among others the same picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from pipelines.demo.checkpoints.parts import fill
from pipelines.errors import InvalidInput
from pipelines.request import ImageToImage, PriorTextToImage, Prompted, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES, WITH_KARRAS_SIGMAS
from pipelines.schedulers.sampler import OWN
from pipelines.weights.entries import Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    array,
    draw,
    draw_moving_group,
    drawn_plainly,
    image_of,
    largest_difference,
    open_family,
    reference,
    seeded,
    small_request,
)

PIPELINE = "stable-diffusion-v1-5"
CHOICES = [
    *(SchedulerChoice(name=name) for name in NAMES if name not in OWN),
    *(SchedulerChoice(name=name, use_karras_sigmas=True) for name in NAMES if name in WITH_KARRAS_SIGMAS),
    SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type="dpmsolver"),
    SchedulerChoice(
        name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    ),
]
IMAGE_TO_IMAGE = [
    SchedulerChoice(name=name, use_karras_sigmas=karras)
    for name, karras in [
        ("DDIMScheduler", None),
        ("DPMSolverMultistepScheduler", None),
        ("DPMSolverSinglestepScheduler", None),
        ("EulerAncestralDiscreteScheduler", None),
        ("EulerDiscreteScheduler", None),
        ("HeunDiscreteScheduler", None),
        ("KDPM2AncestralDiscreteScheduler", True),
        ("KDPM2DiscreteScheduler", True),
        ("DDPMScheduler", None),
        ("UniPCMultistepScheduler", None),
    ]
]
"""Those that diffusers enters rightly in the middle; tests/numerics/test_from_the_middle.py has them all."""


def named(choice: SchedulerChoice) -> str:
    return "-".join(
        [choice.name, *(["karras"] if choice.use_karras_sigmas else []), choice.algorithm_type or ""]
    )


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, PIPELINE)


@pytest.fixture(scope="module")
def plain(manifest: Manifest) -> Any:
    return reference(StableDiffusionPipeline, manifest, "sd15")


@pytest.fixture(scope="module")
def plain_image_to_image(plain: Any) -> Any:
    pipeline = StableDiffusionImg2ImgPipeline(**plain.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_to_image(**changes: Any) -> TextToImage:
    request = small_request(
        negative_prompt="blurry", num_inference_steps=4, scheduler=SchedulerChoice(name="DDIMScheduler")
    )
    return replace(request, **changes)


def scheduler_of(choice: SchedulerChoice, config: Any) -> Any:
    """The same noise scheduler, made with diffusers alone."""
    options: dict[str, Any] = {}
    if choice.use_karras_sigmas:
        options["use_karras_sigmas"] = True
    if choice.algorithm_type:
        options["algorithm_type"] = choice.algorithm_type
        if not choice.algorithm_type.endswith("++"):
            options["final_sigmas_type"] = "sigma_min"
    return getattr(diffusers, choice.name).from_config(config, **options)


@pytest.fixture
def with_scheduler(plain: Any, plain_image_to_image: Any):
    """Gives the plain pipelines another noise scheduler for one test."""
    own = plain.scheduler

    def change(choice: SchedulerChoice) -> None:
        plain.scheduler = scheduler_of(choice, own.config)
        plain_image_to_image.scheduler = scheduler_of(choice, own.config)

    yield change
    plain.scheduler = plain_image_to_image.scheduler = own


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_alone_a_picture_has_the_bytes_of_the_plain_pipeline(
    choice: SchedulerChoice, family: Any, plain: Any, with_scheduler: Any
) -> None:
    request = text_to_image(scheduler=choice, num_inference_steps=5)
    with_scheduler(choice)
    (picture,) = draw(family, request)
    assert np.array_equal(array(picture.image), drawn_plainly(plain, request))


def test_the_checkpoints_own_scheduler_draws_when_none_is_named(family: Any, plain: Any) -> None:
    request = text_to_image(scheduler=SchedulerChoice())
    assert np.array_equal(array(draw(family, request)[0].image), drawn_plainly(plain, request))


@pytest.mark.parametrize("guidance_scale", [0.5, 1.0, 1.5])
def test_guidance_begins_above_one(guidance_scale: float, family: Any, plain: Any) -> None:
    request = text_to_image(scheduler=SchedulerChoice(), guidance_scale=guidance_scale)
    (sample,) = family.encode(request)
    assert (sample.conditioning.negative is None) == (guidance_scale <= 1)
    assert np.array_equal(array(draw(family, request)[0].image), drawn_plainly(plain, request))


@pytest.mark.parametrize("choice", IMAGE_TO_IMAGE, ids=named)
def test_alone_a_redrawn_picture_has_the_bytes_of_the_plain_pipeline(
    choice: SchedulerChoice, family: Any, plain_image_to_image: Any, with_scheduler: Any
) -> None:
    start = np.random.default_rng(5).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    request = ImageToImage(
        pipeline=PIPELINE,
        prompt="a red fox",
        image=image_of(start),
        strength=0.75,
        width=72,
        height=64,
        num_inference_steps=6,
        guidance_scale=7.5,
        seeds=(77,),
        scheduler=choice,
    )
    with_scheduler(choice)
    expected = plain_image_to_image(
        request.prompt,
        image=Image.fromarray(start),
        strength=request.strength,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=seeded(77),
    ).images[0]
    (picture,) = draw(family, request)
    assert np.array_equal(array(picture.image), np.asarray(expected))


def test_each_seed_of_a_request_gives_the_picture_that_it_gives_alone(family: Any) -> None:
    together = draw(family, text_to_image(seeds=(5, 2**64 - 1, 98877465625)))
    alone = [draw(family, text_to_image(seeds=(seed,)))[0] for seed in (5, 2**64 - 1, 98877465625)]
    assert [picture.image for picture in together] == [picture.image for picture in alone]
    assert len({picture.image for picture in together}) == 3


def test_in_a_moving_group_of_all_schedulers_no_pixel_is_off_by_more_than_one(family: Any) -> None:
    requests = [
        text_to_image(
            prompt=f"picture number {index}",
            seeds=(index,),
            num_inference_steps=4 + index % 4,
            guidance_scale=0.5 + index % 8,
            scheduler=SchedulerChoice(name=name),
        )
        for index, name in enumerate(NAMES)
    ]
    grouped = draw_moving_group(family, requests)
    for request, picture in zip(requests, grouped, strict=True):
        assert largest_difference(picture, array(draw(family, request)[0].image)) <= 1


def test_the_requested_size_is_honoured_to_the_pixel(family: Any) -> None:
    exact = draw(family, text_to_image(width=61, height=50))[0].image
    workable = draw(family, text_to_image(width=64, height=56))[0].image
    assert (exact.width, exact.height) == (61, 50)
    assert np.array_equal(array(exact), array(workable)[:50, :61])


def test_a_picture_depends_on_prompt_negative_prompt_seed_and_guidance(family: Any) -> None:
    changed = [
        {},
        {"prompt": "a blue car"},
        {"negative_prompt": "sharp"},
        {"seeds": (7,)},
        {"guidance_scale": 3.0},
    ]
    pictures = [draw(family, text_to_image(**change))[0].image for change in changed]
    assert len(set(pictures)) == len(pictures)
    assert array(pictures[0]).std() > 20


@pytest.mark.parametrize("clip_skip", [1, 2, 7])
def test_clip_skip_leaves_out_layers_as_diffusers_does(
    clip_skip: int, family: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # diffusers looks for the layers where transformers before version 5 had them.
    monkeypatch.setitem(plain.text_encoder.__dict__, "text_model", plain.text_encoder)
    request = text_to_image(scheduler=SchedulerChoice(), clip_skip=clip_skip)
    (picture,) = draw(family, request)
    assert np.array_equal(array(picture.image), drawn_plainly(plain, request, clip_skip=clip_skip))
    assert picture.image != draw(family, replace(request, clip_skip=None))[0].image


def test_more_layers_than_there_are_cannot_be_skipped(family: Any) -> None:
    with pytest.raises(InvalidInput, match="clip_skip: the text encoder has 12 layers"):
        family.encode(text_to_image(clip_skip=13))


def test_a_strength_that_leaves_no_step_is_refused(family: Any) -> None:
    request = ImageToImage(
        pipeline=PIPELINE,
        prompt="",
        image=image_of(np.zeros((64, 64, 3), np.uint8)),
        strength=0.1,
        width=64,
        height=64,
        num_inference_steps=5,
        guidance_scale=7.5,
        seeds=(1,),
    )
    with pytest.raises(InvalidInput, match="strength: leaves none of 5 steps"):
        family.encode(request)


def test_a_request_of_another_family_is_refused(family: Any) -> None:
    request = PriorTextToImage(
        pipeline=PIPELINE,
        prompt="",
        width=64,
        height=64,
        num_inference_steps=5,
        prior_num_inference_steps=5,
        guidance_scale=4,
        prior_guidance_scale=1,
        seeds=(1,),
    )
    with pytest.raises(InvalidInput, match="stable-diffusion-v1-5 does not draw prior_text_to_image"):
        family.encode(request)


def test_a_repeated_prompt_is_not_encoded_again(family: Any) -> None:
    calls: list[None] = []
    handle = family.modules["text_encoder"].register_forward_pre_hook(lambda *_: calls.append(None))
    for _ in range(2):
        family.encode(text_to_image(prompt="never seen before"))
    handle.remove()
    assert len(calls) == 2  # the prompt and the negative prompt, once each


def test_a_network_that_is_told_the_guidance_scale_needs_no_second_half(manifest: Manifest) -> None:
    """Latent consistency models embed the scale (``time_cond_proj_dim``)."""
    family = open_family(manifest, PIPELINE)
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    config = {**plain.unet.config, "time_cond_proj_dim": 8}
    torch.manual_seed(3)
    unet = diffusers.UNet2DConditionModel.from_config(config).eval()
    unet.load_state_dict(plain.unet.state_dict(), strict=False)
    plain.unet = unet
    family.modules["unet"].register_to_config(time_cond_proj_dim=8)
    family.modules["unet"].time_embedding = unet.time_embedding
    request = text_to_image(scheduler=SchedulerChoice(name="LCMScheduler"), guidance_scale=8.0)
    plain.scheduler = diffusers.LCMScheduler.from_config(plain.scheduler.config)
    (sample,) = family.encode(request)
    assert sample.conditioning.negative is None
    assert np.array_equal(array(draw(family, request)[0].image), drawn_plainly(plain, request))


@pytest.fixture(scope="module")
def coarse(manifest: Manifest) -> Manifest:
    """The checkpoint with a VAE of sixteen pixels per latent."""
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    plain.vae = AutoencoderKL(
        block_out_channels=(8,) * 5,
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        norm_num_groups=1,
    )
    fill(plain.vae, 1)
    plain.save_pretrained(manifest.path.parent / "coarse")
    entry = manifest.pipeline(PIPELINE).model_copy(
        update={"parts": {"pipeline": Source(folder=Path("coarse"))}}
    )
    return manifest.model_copy(update={"pipelines": {**manifest.pipelines, PIPELINE: entry}})


def test_the_vae_says_how_many_pixels_a_latent_has(coarse: Manifest) -> None:
    family = open_family(coarse, PIPELINE)
    plain = reference(StableDiffusionPipeline, coarse, "coarse")
    again = StableDiffusionImg2ImgPipeline(**plain.components, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    plain.scheduler = again.scheduler = DDIMScheduler.from_config(plain.scheduler.config)
    request = text_to_image(width=80, height=64)
    assert np.array_equal(array(draw(family, request)[0].image), drawn_plainly(plain, request))
    start = np.random.default_rng(5).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    values = {name: getattr(request, name) for name in Prompted.__slots__}
    redrawn = ImageToImage(**values, image=image_of(start), strength=0.6)
    expected = again(
        request.prompt,
        image=Image.fromarray(start),
        strength=0.6,
        negative_prompt=request.negative_prompt,
        num_inference_steps=4,
        guidance_scale=7.5,
        generator=seeded(1024),
    ).images[0]
    assert np.array_equal(array(draw(family, redrawn)[0].image), np.asarray(expected))


def test_what_the_pixels_of_a_latent_do_not_divide_is_drawn_larger_and_cut(coarse: Manifest) -> None:
    family = open_family(coarse, PIPELINE)
    exact, larger = (draw(family, text_to_image(width=width))[0].image for width in (72, 80))
    assert (exact.width, exact.height) == (72, 64)
    assert np.array_equal(array(exact), array(larger)[:, :72])


def test_highres_fix_enlarges_latents_of_any_size(coarse: Manifest) -> None:
    family = open_family(coarse, PIPELINE)
    family.modules["unet"].register_to_config(sample_size=4)
    (first,) = family.encode(text_to_image(width=128, height=96, highres_fix=True))
    second = first.finish(first)
    assert (first.key.width, first.key.height, *first.latents.shape[2:]) == (80, 48, 3, 5)
    assert (second.key.width, second.key.height, *second.latents.shape[2:]) == (128, 96, 6, 8)


def test_noise_of_too_few_steps_is_told_with_the_picture(family: Any) -> None:
    karras_ve = SchedulerChoice(name="KarrasVeScheduler")
    (noisy,) = draw(family, text_to_image(scheduler=karras_ve, num_inference_steps=3))
    assert "KarrasVeScheduler leaves noise in a picture of 3 steps" in " ".join(noisy.warnings)
    assert draw(family, text_to_image(scheduler=karras_ve, num_inference_steps=8))[0].warnings == ()


def test_noise_is_told_of_the_steps_that_are_drawn(family: Any) -> None:
    changes = {"image": image_of(np.zeros((64, 72, 3), np.uint8)), "strength": 0.5, "kind": "image_to_image"}
    asked = text_to_image(scheduler=SchedulerChoice(name="KarrasVeScheduler"), num_inference_steps=4)
    values = {name: getattr(asked, name) for name in Prompted.__slots__} | changes
    (noisy,) = draw(family, ImageToImage(**values | {"width": 72}))
    assert "2 of 4 steps" in " ".join(noisy.warnings)
