"""Redrawing and repainting with SD1.5 and SDXL: the plain pipelines' bytes, and nothing outside the mask."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image

from pipelines.demo.checkpoints.parts import fill
from pipelines.errors import InvalidInput
from pipelines.request import ImageToImage, Inpainting, Request, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES
from pipelines.weights.entries import PipelineEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    draw_moving_group,
    image_of,
    largest_difference,
    open_family,
    reference,
    seeded,
)

PICTURE = np.random.default_rng(5).integers(0, 256, (64, 72, 3), dtype=np.uint8)
MASK = np.zeros((64, 72, 3), np.uint8)
MASK[13:50, 20:61] = 255
FOLDERS = {"stable-diffusion-v1-5": "sd15", "sdxl": "sdxl"}
SCHEDULERS = (
    "DDIMScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
)
TRIED_QUICKLY = (
    "HeunDiscreteScheduler",
    "KarrasVeScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""The schedulers with which the quick run repaints: one of each way to step."""


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def family(name: str, random_manifest: Manifest) -> Any:
    return open_family(random_manifest, name)


@pytest.fixture(scope="module")
def components(name: str, random_manifest: Manifest) -> dict[str, Any]:
    cls = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    return reference(cls, random_manifest, FOLDERS[name]).components


def plain(components: dict[str, Any], kind: str, scheduler: str) -> Any:
    """The plain pipeline of that kind."""
    if "text_encoder_2" in components:
        xl = {"image": StableDiffusionXLImg2ImgPipeline, "mask": StableDiffusionXLInpaintPipeline}
        pipeline = xl[kind](**components, add_watermarker=False)
    else:
        sd = {"image": StableDiffusionImg2ImgPipeline, "mask": StableDiffusionInpaintPipeline}
        pipeline = sd[kind](**components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(components["scheduler"].config)
    return pipeline


def drawn_plainly(pipeline: Any, request: ImageToImage | Inpainting) -> np.ndarray:
    more: dict[str, Any] = {}
    if isinstance(request, Inpainting):
        mask = Image.fromarray(array(request.mask))
        more = {"mask_image": mask, "width": request.width, "height": request.height}
    picture = pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        image=Image.fromarray(array(request.image)),
        strength=request.strength,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=seeded(request.seeds[0]),
        **more,
    ).images[0]
    return np.asarray(picture)


def redrawn(name: str, **changes: Any) -> ImageToImage:
    values: dict[str, Any] = {
        "pipeline": name,
        "prompt": "a red fox",
        "negative_prompt": "blurry",
        "image": image_of(PICTURE),
        "strength": 0.7,
        "width": 72,
        "height": 64,
        "num_inference_steps": 5,
        "guidance_scale": 7.5,
        "seeds": (77,),
        "scheduler": SchedulerChoice(name="DDIMScheduler"),
    }
    return ImageToImage(**values | changes)


def repainted(name: str, **changes: Any) -> Inpainting:
    like = redrawn(name)
    values = {field.name: getattr(like, field.name) for field in fields(like) if field.name != "kind"}
    return Inpainting(**values | {"mask": image_of(MASK)} | changes)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_redrawn_picture_has_the_bytes_of_the_plain_pipeline(
    name: str, family: Any, components: dict[str, Any], scheduler: str
) -> None:
    request = redrawn(name, scheduler=SchedulerChoice(name=scheduler))
    expected = drawn_plainly(plain(components, "image", scheduler), request)
    assert np.array_equal(array(draw(family, request)[0].image), expected)


@pytest.mark.parametrize("strength", [0.7, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_inside_the_mask_a_picture_has_the_bytes_of_the_plain_pipeline_and_outside_its_own(
    name: str, family: Any, components: dict[str, Any], scheduler: str, strength: float
) -> None:
    request = repainted(name, scheduler=SchedulerChoice(name=scheduler), strength=strength)
    expected = np.where(MASK, drawn_plainly(plain(components, "mask", scheduler), request), PICTURE)
    picture = array(draw(family, request)[0].image)
    assert np.array_equal(picture, expected)
    assert not np.array_equal(picture[MASK > 0], PICTURE[MASK > 0])


def test_without_guidance_it_is_the_plain_pipelines_picture_too(
    name: str, family: Any, components: dict[str, Any]
) -> None:
    request = repainted(name, guidance_scale=1.0)
    expected = np.where(MASK, drawn_plainly(plain(components, "mask", "DDIMScheduler"), request), PICTURE)
    assert np.array_equal(array(draw(family, request)[0].image), expected)


def test_drawn_among_requests_of_other_kinds_no_pixel_is_off_by_more_than_one(name: str, family: Any) -> None:
    from_text = TextToImage(
        pipeline=name,
        prompt="a car",
        width=72,
        height=64,
        num_inference_steps=4,
        guidance_scale=5,
        seeds=(4,),
    )
    requests: list[Request] = [
        redrawn(name),
        repainted(name, seeds=(3,), scheduler=SchedulerChoice(name="EulerAncestralDiscreteScheduler")),
        from_text,
        repainted(name, strength=1.0, scheduler=SchedulerChoice(name="HeunDiscreteScheduler")),
    ]
    assert len({family.encode(request)[0].key for request in requests}) == 1
    for request, picture in zip(requests, draw_moving_group(family, requests), strict=True):
        assert largest_difference(picture, array(draw(family, request)[0].image)) <= 1


def test_a_grey_mask_mixes_both_pictures(name: str, family: Any) -> None:
    soft = np.full_like(MASK, 128)
    white = array(draw(family, repainted(name, mask=image_of(np.full_like(MASK, 255))))[0].image)
    mixed = array(draw(family, repainted(name, mask=image_of(soft)))[0].image)
    assert np.abs(mixed - (white / 2 + PICTURE / 2)).max() <= 2


def test_a_black_mask_keeps_the_picture(name: str, family: Any) -> None:
    request = repainted(name, mask=image_of(np.zeros_like(MASK)))
    assert draw(family, request)[0].image == request.image


def test_each_seed_repaints_in_its_own_way(name: str, family: Any) -> None:
    together = draw(family, repainted(name, seeds=(5, 6)))
    alone = [draw(family, repainted(name, seeds=(seed,)))[0] for seed in (5, 6)]
    assert [picture.image for picture in together] == [picture.image for picture in alone]
    assert together[0].image != together[1].image


def test_a_size_that_latents_do_not_have_is_honoured_to_the_pixel(name: str, family: Any) -> None:
    request = repainted(
        name, width=70, height=61, image=image_of(PICTURE[:61, :70]), mask=image_of(MASK[:61, :70])
    )
    picture = array(draw(family, request)[0].image)
    assert picture.shape == (61, 70, 3)
    outside = MASK[:61, :70] == 0
    assert np.array_equal(picture[outside], PICTURE[:61, :70][outside])


@pytest.mark.parametrize("make", [redrawn, repainted])
def test_a_strength_that_leaves_no_step_is_refused(name: str, family: Any, make: Any) -> None:
    with pytest.raises(InvalidInput, match="strength: leaves none of 5 steps"):
        family.encode(make(name, strength=0.1))


@pytest.mark.parametrize(
    "scheduler",
    [name if name in TRIED_QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_every_scheduler_repaints_and_brings_back_what_it_must_keep(
    scheduler: str, random_manifest: Manifest
) -> None:
    family = open_family(random_manifest, "stable-diffusion-v1-5")
    choice = SchedulerChoice(name=scheduler)
    (sample,) = family.encode(repainted("stable-diffusion-v1-5", scheduler=choice, num_inference_steps=4))
    known = sample.sampler._known
    advance_to_the_end(family, sample)
    kept = torch.from_numpy(MASK[None, None, ::8, ::8, 0] == 0).expand_as(known)
    assert torch.equal(sample.latents[kept], known[kept])
    assert torch.isfinite(sample.latents).all()
    assert not torch.allclose(sample.latents[~kept], known[~kept], atol=0.1)


@pytest.fixture(scope="module")
def inpainting_checkpoint(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A checkpoint of SD1.5 whose network was made for inpainting: nine channels come in."""
    folder = tmp_path_factory.mktemp("inpainting")
    shutil.copytree(random_manifest.path.parent / "sd15", folder / "sd15")
    config = json.loads((folder / "sd15/unet/config.json").read_text()) | {"in_channels": 9}
    unet = UNet2DConditionModel.from_config(config)
    fill(unet, 99)
    shutil.rmtree(folder / "sd15/unet")
    unet.save_pretrained(folder / "sd15/unet")
    entry = PipelineEntry(family="sd15", parts={"pipeline": Source(folder=Path("sd15"))}, dtype="float32")
    return Manifest(path=folder / "weights.yaml", pipelines={"inpainting": entry})


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_a_network_made_for_inpainting_draws_what_the_plain_pipeline_draws(
    inpainting_checkpoint: Manifest, strength: float
) -> None:
    components = reference(StableDiffusionPipeline, inpainting_checkpoint, "sd15").components
    request = repainted("inpainting", strength=strength)
    expected = np.where(MASK, drawn_plainly(plain(components, "mask", "DDIMScheduler"), request), PICTURE)
    family = open_family(inpainting_checkpoint, "inpainting")
    assert np.array_equal(array(draw(family, request)[0].image), expected)


def test_a_network_made_for_inpainting_sees_the_mask_of_a_panorama_in_views(
    inpainting_checkpoint: Manifest,
) -> None:
    family = open_family(inpainting_checkpoint, "inpainting")
    family.modules["unet"].register_to_config(sample_size=4)
    (whole,) = family.encode(repainted("inpainting"))
    request = repainted("inpainting", panorama=True)
    (sample,) = family.encode(request)
    views = sample.conditioning.positive["masked_picture"][0:9]
    mask = whole.conditioning.positive["masked_picture"][:, :1]
    assert views.shape == (9, 5, 4, 4)
    assert torch.equal(views[7:8, :1], mask[:, :, :4, [7, 8, 0, 1]])
    assert torch.equal(views[7, :, :, 2:], views[0, :, :, :2])
    assert torch.equal(views[7, :, :, :2], views[5, :, :, 2:])
    picture = array(draw(family, request)[0].image)
    assert np.array_equal(picture[MASK == 0], PICTURE[MASK == 0])
    assert not np.array_equal(picture, array(draw(family, repainted("inpainting"))[0].image))


def test_a_network_made_for_inpainting_refuses_everything_else(inpainting_checkpoint: Manifest) -> None:
    family = open_family(inpainting_checkpoint, "inpainting")
    with pytest.raises(InvalidInput, match="pipeline: inpainting only repaints masked parts"):
        family.encode(redrawn("inpainting"))


def test_in_half_precision_a_picture_is_encoded_in_full(random_manifest: Manifest) -> None:
    from pipelines.images import codec

    vae = reference(StableDiffusionXLPipeline, random_manifest, "sdxl").vae
    picture = codec.from_image(image_of(PICTURE), 64, 72)
    with torch.no_grad():
        expected = vae.half().float().encode(picture).latent_dist.mean
        found = codec.encode(vae.half(), picture, upcast=True).mean
    assert torch.equal(found, expected)
    assert vae.dtype == torch.float16
