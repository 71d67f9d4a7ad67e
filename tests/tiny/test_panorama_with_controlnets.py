"""Panoramas that ControlNets steer: each view follows the part of the control images that it looks at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from pipelines.denoising import step
from pipelines.layers import panorama
from pipelines.layers.panorama import Views, views_of
from pipelines.request import Control, SchedulerChoice, TextToImage
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    draw_moving_group,
    image_of,
    largest_difference,
    open_family,
    small_request,
)

SD15, XL = "stable-diffusion-v1-5", "sdxl"
RANDOM = np.random.default_rng(8)
EDGES, POSE = (
    np.kron(RANDOM.integers(0, 2, (4, 12, 1), dtype=np.uint8), np.full((16, 16, 3), 255, np.uint8))
    for _ in range(2)
)
CANNY = Control(name="canny", image=image_of(EDGES), scale=2.0)
OPENPOSE = Control(name="openpose", image=image_of(POSE), scale=1.5)
REQUEST = small_request(
    negative_prompt="blurry",
    width=192,
    guidance_scale=6.0,
    seeds=(11,),
    scheduler=SchedulerChoice(name="DDIMScheduler"),
    controls=(CANNY,),
    panorama=True,
)
WINDOW = 16
"""Latents along the side of a view here: fewer than the picture is wide, more than it is high."""


@pytest.fixture(scope="module")
def family(random_manifest: Manifest) -> Any:
    opened = open_family(random_manifest, SD15)
    opened.modules["unet"].register_to_config(sample_size=WINDOW)
    return opened


@pytest.fixture(scope="module")
def untrimmed(random_manifest: Manifest) -> Any:
    """A window of 64 latents, an eighth of which is one view by itself."""
    return open_family(random_manifest, SD15)


def latents_of(family: Any, request: TextToImage, turned_by: int = 0) -> Tensor:
    """The latents of the finished sample, whose first ones were turned around by so many."""
    (sample,) = family.encode(request)
    sample.latents = sample.latents.roll(turned_by, dims=-1)
    advance_to_the_end(family, sample)
    return sample.latents


@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("guidance_scale", [6.0, 1.0])
def test_with_one_view_it_is_what_the_controlnet_draws(
    guess_mode: bool, guidance_scale: float, untrimmed: Any
) -> None:
    family = untrimmed
    part = replace(CANNY, image=image_of(np.ascontiguousarray(EDGES[:, :64])))
    narrow = replace(
        REQUEST, width=64, controls=(part,), guess_mode=guess_mode, guidance_scale=guidance_scale
    )
    assert len(views_of(8, 8, 64)) == 1
    expected = latents_of(family, replace(narrow, panorama=False))
    assert torch.equal(latents_of(family, narrow), expected)
    vae = family.modules["vae"]
    with torch.no_grad():
        decoded = panorama.decode(vae, expected)
    picture = ((decoded[0].clamp(-1, 1) / 2 + 0.5) * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(array(draw(family, narrow)[0].image), picture)


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def drawn_by_hand(family: Any, request: TextToImage) -> Tensor:
    """Every view by itself, latents and guides cut out with wrapped indices: DDIM's step, then the mean."""
    pipeline = family._pipeline
    (sample,) = family.encode(request)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(request.num_inference_steps)
    prompted, without = (
        half["encoder_hidden_states"] for half in (sample.conditioning.positive, sample.conditioning.negative)
    )
    columns = [[(left + at) % 24 for at in range(WINDOW)] for left in range(0, 24 - 1, 2)]
    latents = sample.latents
    for time in scheduler.timesteps:
        total, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for view in columns:
            seen = latents[..., view]
            pixels = [8 * column + at for column in view for at in range(8)]
            guides = [
                torch.from_numpy(array(control.image)[:, pixels] / np.float32(255)).permute(2, 0, 1)[None]
                for control in request.controls
            ]
            positive = network(family, request, seen, time, prompted, guides)
            guides = [] if request.guess_mode else guides
            negative = network(family, request, seen, time, without, guides)
            prediction = negative + request.guidance_scale * (positive - negative)
            total[..., view] += scheduler.step(prediction, time, seen, return_dict=False)[0]
            count[..., view] += 1
        latents = total / count
    return latents


@torch.no_grad()
def network(
    family: Any, request: TextToImage, seen: Tensor, time: Tensor, told: Tensor, guides: list[Tensor]
) -> Tensor:
    residuals: list[list[Tensor]] = []
    for control, guide in zip(request.controls, guides, strict=False):
        down, middle = family.modules[f"controlnet:{control.name}"](
            seen,
            time,
            told,
            guide,
            conditioning_scale=control.scale,
            guess_mode=request.guess_mode,
            return_dict=False,
        )
        residuals.append([*down, middle])
    added = [sum(parts[1:], parts[0]) for parts in zip(*residuals, strict=True)]
    if not added:
        return family.modules["unet"](seen, time, told).sample
    *down, middle = added
    return family.modules["unet"](
        seen, time, told, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample


@pytest.mark.slow
@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("controls", [(CANNY,), (OPENPOSE, CANNY)], ids=["one", "two"])
def test_each_view_sees_the_part_of_the_guides_that_it_looks_at(
    controls: tuple[Control, ...], guess_mode: bool, family: Any
) -> None:
    request = replace(REQUEST, controls=controls, guess_mode=guess_mode)
    drawn = latents_of(family, request)
    assert furthest(drawn, drawn_by_hand(family, request)) < 1e-4
    assert furthest(drawn, latents_of(family, replace(request, controls=()))) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("turned_by", [2, 10, 18])
def test_a_guide_that_is_turned_turns_the_picture(turned_by: int, family: Any) -> None:
    """No edge is special: what is beyond the guide's right side is its left one."""
    turned = replace(CANNY, image=image_of(np.roll(EDGES, 8 * turned_by, axis=1)))
    straight = latents_of(family, REQUEST)
    found = latents_of(family, replace(REQUEST, controls=(turned,)), turned_by)
    assert furthest(found, straight.roll(turned_by, dims=-1)) < 1e-4
    assert furthest(found, latents_of(family, REQUEST, turned_by)) > 1e-2


def test_drawn_among_others_no_pixel_is_off_by_more_than_one(family: Any) -> None:
    requests = [
        REQUEST,
        replace(REQUEST, panorama=False, seeds=(2,)),
        replace(REQUEST, guess_mode=True, seeds=(3,), num_inference_steps=2),
        replace(REQUEST, controls=(replace(CANNY, image=image_of(POSE), scale=0.3),), guidance_scale=1.0),
    ]
    alone = [array(draw(family, request)[0].image) for request in requests]
    for picture, expected in zip(draw_moving_group(family, requests), alone, strict=True):
        assert largest_difference(picture, expected) <= 1


def test_a_wide_guide_is_never_cut_into_all_of_its_views_at_once(family: Any) -> None:
    wide = np.tile(EDGES, (1, 4, 1))
    request = replace(REQUEST, width=768, controls=(replace(CANNY, image=image_of(wide)),))
    (sample,) = family.encode(request)
    shapes: list[tuple[int, ...]] = []
    handle = family.modules["controlnet:canny"].register_forward_pre_hook(
        lambda _, __, named: shapes.append(tuple(named["controlnet_cond"].shape)), with_kwargs=True
    )
    with torch.no_grad():
        step.advance([sample])
    handle.remove()
    assert sum(shape[0] for shape in shapes) == 2 * 48
    assert set(shapes) == {(12, 3, 64, 128)}


def test_a_view_of_what_goes_along_is_cut_as_the_latents_are() -> None:
    whole = torch.arange(2.0 * 40 * 72).reshape(1, 2, 40, 72)
    views = Views(whole, 3, 8)
    assert (len(views), views.shape) == (27, (27, 2, 24, 24))
    assert torch.equal(views[0:1], whole[:, :, :24, :24])
    assert torch.equal(views[8:9], torch.cat([whole[:, :, :24, 64:], whole[:, :, :24, :16]], dim=-1))
    assert torch.equal(views[20:27], torch.cat([views[index : index + 1] for index in range(20, 27)]))


def test_sdxl_is_steered_in_views_too(random_manifest: Manifest) -> None:
    family = open_family(random_manifest, XL)
    control = replace(CANNY, name="canny-sdxl")
    request = replace(REQUEST, pipeline=XL, width=192, controls=(control,), num_inference_steps=2)
    other = replace(request, controls=(replace(control, image=image_of(POSE)),))
    with_control_image, otherwise, free = (
        draw(family, each)[0].image for each in (request, other, replace(request, controls=()))
    )
    assert len({with_control_image, otherwise, free}) == 3
    assert draw(family, request)[0].image == with_control_image
