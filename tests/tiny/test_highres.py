"""highres_fix on small checkpoints: the plain pipelines one after the other, and stages that travel alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from torch.nn.functional import interpolate

from pipelines.denoising.sample import Picture, Sample
from pipelines.image_io import RGBImage
from pipelines.layers import highres
from pipelines.request import ImageToImage, Inpainting, Prompted, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES
from pipelines.weights.manifest import Manifest
from tests.drawing import advance_to_the_end, array, open_family, reference, seeded

NATIVE = 64
SD15 = "stable-diffusion-v1-5"
PLAIN = {
    SD15: ("sd15", StableDiffusionPipeline, StableDiffusionImg2ImgPipeline),
    "sdxl": ("sdxl", StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline),
}


def request(pipeline: str, **changes: Any) -> TextToImage:
    values: dict[str, Any] = {
        "pipeline": pipeline,
        "prompt": "a red fox",
        "width": 128,
        "height": 96,
        "num_inference_steps": 4,
        "guidance_scale": 6.0,
        "seeds": (3, 4),
        "highres_fix": True,
    }
    return TextToImage(**values | changes)


@pytest.fixture(scope="module")
def families(manifest: Manifest) -> dict[str, Any]:
    """Both checkpoints, as if they had been trained with pictures of 64 pixels."""
    families = {name: open_family(manifest, name) for name in PLAIN}
    for family in families.values():
        family.modules["unet"].register_to_config(sample_size=NATIVE // 8)
    return families


def stages(family: Any, sample: Sample) -> tuple[list[Sample], Picture]:
    passed = [sample]
    while True:
        advance_to_the_end(family, passed[-1])
        result = passed[-1].finish(passed[-1])
        if isinstance(result, Picture):
            return passed, result
        passed.append(result)


@pytest.mark.parametrize("name", PLAIN)
def test_it_is_text_to_image_then_image_to_image_of_the_enlarged_latents(
    name: str, families: dict[str, Any], manifest: Manifest
) -> None:
    folder, text_to_image, image_to_image = PLAIN[name]
    first = reference(text_to_image, manifest, folder)
    second = image_to_image(**first.components)
    second.set_progress_bar_config(disable=True)
    # diffusers enters the checkpoint's own scheduler (PNDM) wrongly in the middle of its schedule.
    first.scheduler = second.scheduler = DDIMScheduler.from_config(first.scheduler.config)
    asked = request(name, scheduler=SchedulerChoice(name="DDIMScheduler"))
    generator = seeded(4)
    options = {"num_inference_steps": 4, "guidance_scale": 6.0, "generator": generator}
    latents = first(asked.prompt, width=72, height=56, output_type="latent", **options).images
    latents = interpolate(latents, size=(12, 16), mode="bilinear")
    expected = second(asked.prompt, image=latents, strength=0.55, **options).images[0]

    passed, picture = stages(families[name], families[name].encode(asked)[1])
    assert np.array_equal(array(picture.image), np.asarray(expected))
    assert [(sample.key.width, sample.key.height) for sample in passed] == [(72, 56), (128, 96)]


@pytest.mark.parametrize("name", PLAIN)
def test_progress_counts_both_passes(name: str, families: dict[str, Any]) -> None:
    (first, second), _ = stages(families[name], families[name].encode(request(name))[0])
    assert second.sampler.total < first.sampler.total
    assert (first.evaluations_before, first.evaluations_after) == (0, second.sampler.total)
    assert (second.evaluations_before, second.evaluations_after) == (first.sampler.total, 0)


def test_without_it_the_same_picture_is_drawn_as_before_and_after_it(families: dict[str, Any]) -> None:
    family = families[SD15]
    with_it = request(SD15)
    once = replace(with_it, highres_fix=False)
    pictures = [stages(family, family.encode(each)[0])[1].image for each in (once, with_it, once)]
    assert pictures[0] == pictures[2] != pictures[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_noise_scheduler_redraws_what_it_drew_and_what_was_sent(
    name: str, families: dict[str, Any]
) -> None:
    """Each begins in the middle of its schedule then, at strength 0.55 and 0.5."""
    family = families[SD15]
    scheduler = SchedulerChoice(name=name)
    drawn = request(SD15, width=96, height=64, seeds=(3,), scheduler=scheduler)
    values = {name: getattr(drawn, name) for name in Prompted.__slots__}
    start = RGBImage(96, 64, torch.arange(96 * 64 * 3).remainder(251).to(torch.uint8).numpy().tobytes())
    redrawn = ImageToImage(**values | {"highres_fix": False}, image=start, strength=0.5)
    each = [drawn, replace(drawn, highres_fix=False), redrawn]
    first, second = ([stages(family, family.encode(one)[0])[1].image for one in each] for _ in range(2))
    assert first == second
    assert len({*first, start}) == 4
    assert all(array(picture).std() > 20 for picture in first)


def test_one_step_is_enough_for_both_passes(families: dict[str, Any]) -> None:
    family = families[SD15]
    passed, _ = stages(family, family.encode(request(SD15, num_inference_steps=1))[0])
    assert [sample.sampler.total for sample in passed] == [1, 1]


def test_a_picture_or_a_part_of_it_is_redrawn_in_two_passes_too(families: dict[str, Any]) -> None:
    family = families[SD15]
    values = {name: getattr(request(SD15), name) for name in Prompted.__slots__}
    start = RGBImage(128, 96, torch.arange(128 * 96 * 3).remainder(251).to(torch.uint8).numpy().tobytes())
    passed, picture = stages(family, family.encode(ImageToImage(**values, image=start, strength=0.5))[0])
    assert [sample.key.width for sample in passed] == [72, 128]
    lower_half = RGBImage(128, 96, bytes(128 * 48 * 3) + b"\xff" * (128 * 48 * 3))
    masked = Inpainting(**values, image=start, mask=lower_half, strength=0.5)
    passed, repainted = stages(family, family.encode(masked)[0])
    assert [sample.key.width for sample in passed] == [72, 128]
    assert np.array_equal(array(repainted.image)[:48], array(start)[:48])
    assert not np.array_equal(array(repainted.image)[48:], array(start)[48:])
    assert (picture.image.width, picture.image.height) == (128, 96)


@pytest.mark.parametrize(
    ("asked", "native", "drawn"),
    [
        ((1024, 1024), 512, (512, 512)),
        ((1024, 512), 512, (728, 360)),
        ((1024, 256), 512, (1024, 256)),
        ((512, 512), 512, (512, 512)),
        ((256, 256), 512, (256, 256)),
        ((1024, 1024), 1024, (1024, 1024)),
    ],
)
def test_the_first_pass_has_the_asked_shape_and_no_more_pixels_than_the_checkpoint_knows(
    asked: tuple[int, int], native: int, drawn: tuple[int, int]
) -> None:
    first = highres.first_pass(request("sd", width=asked[0], height=asked[1]), native, 8)
    assert (first.width, first.height) == drawn
