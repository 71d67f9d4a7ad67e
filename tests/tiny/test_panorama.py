"""MultiDiffusion on small checkpoints: the reference's latents, no edge to be seen, the same among others."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPanoramaPipeline
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.denoising import step
from pipelines.image_io import RGBImage
from pipelines.images import codec
from pipelines.layers import panorama
from pipelines.layers.panorama import views_of
from pipelines.request import Inpainting, SchedulerChoice, TextToImage
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    draw_moving_group,
    finish,
    largest_difference,
    open_family,
    reference,
    seeded,
    small_request,
)

PIPELINE = "stable-diffusion-v1-5"
REQUEST = small_request(
    negative_prompt="blurry",
    width=320,
    height=32,
    scheduler=SchedulerChoice(name="DDIMScheduler"),
    panorama=True,
)
WIDE = replace(REQUEST, width=576)
"""Wider than one view: here the reference crosses the edges, too."""


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, PIPELINE)


@pytest.fixture(scope="module")
def sdxl(manifest: Manifest) -> Any:
    return open_family(manifest, "sdxl")


@pytest.fixture(scope="module")
def plain(manifest: Manifest) -> Any:
    return reference(StableDiffusionPanoramaPipeline, manifest, "sd15")


def drawn_plainly(plain: Any, request: TextToImage, **more: Any) -> Any:
    return plain(
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=seeded(request.seeds[0]),
        **more,
    ).images


@pytest.mark.parametrize(
    ("name", "karras"),
    [
        ("DDIMScheduler", None),
        ("PNDMScheduler", None),
        ("EulerAncestralDiscreteScheduler", None),
        ("HeunDiscreteScheduler", True),
        ("UniPCMultistepScheduler", True),
    ],
)
def test_alone_the_latents_have_the_bytes_of_the_reference(
    name: str, karras: bool | None, family: Any, plain: Any
) -> None:
    own = plain.scheduler
    options = {"use_karras_sigmas": True} if karras else {}
    plain.scheduler = getattr(diffusers, name).from_config(own.config, **options)
    choice = SchedulerChoice(name=name, use_karras_sigmas=karras)
    request = replace(WIDE, scheduler=choice)
    (sample,) = family.encode(request)
    expected = drawn_plainly(plain, request, circular_padding=True, output_type="latent")
    plain.scheduler = own
    assert torch.equal(advance_to_the_end(family, sample).latents, expected)


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
def test_the_picture_is_off_the_references_by_one_at_most(
    guidance_scale: float, family: Any, plain: Any
) -> None:
    """It multiplies the latents by one over the scaling factor where its other pipelines divide by it, and
    evaluates each view by itself, which rounds another way than two at a time without guidance."""
    own = plain.scheduler
    plain.scheduler = diffusers.DDIMScheduler.from_config(own.config)
    request = replace(WIDE, guidance_scale=guidance_scale)
    (expected,) = drawn_plainly(plain, request, circular_padding=True)
    plain.scheduler = own
    assert largest_difference(array(draw(family, request)[0].image), np.asarray(expected)) <= 1


@pytest.mark.parametrize("size", [(64, 72), (8, 256), (80, 128), (32, 77)])
def test_the_views_are_those_of_the_reference(size: tuple[int, int], plain: Any) -> None:
    height, width = size
    expected = plain.get_views(height * 8, width * 8, circular_padding=True)
    views = views_of(height, width, 64)
    assert [(rows.start, columns[0].start) for rows, columns in views] == [view[::2] for view in expected]
    assert all(sum(part.stop - part.start for part in columns) == 64 for _, columns in views)


@pytest.mark.parametrize("size", [(71, 100), (32, 32), (64, 64), (128, 256), (33, 65), (1, 1)])
@pytest.mark.parametrize("window", [64, 128])
def test_every_place_is_in_a_view_and_every_view_is_of_one_size(size: tuple[int, int], window: int) -> None:
    height, width = size
    count = torch.zeros(height, width, dtype=torch.int)
    for rows, columns in views_of(height, width, window):
        for part in columns:
            count[rows, part] += 1
        wide = sum(part.stop - part.start for part in columns)
        assert (rows.stop - rows.start, wide) == (min(window, height), min(window, width))
    assert int(count.min()) >= 1


def seam(pictures: np.ndarray) -> tuple[float, float]:
    """Mean difference of the left and right columns, and the largest between inner neighbours.

    Of neighbours that belong to different latents, as those at the seam do.
    """
    differences = np.abs(np.diff(pictures.astype(int), axis=1, append=pictures[:, :1].astype(int)))
    columns = differences.mean(axis=(0, 2))[7::8]
    return float(columns[-1]), float(columns[:-1].max())


def stacked(family: Any, request: TextToImage) -> np.ndarray:
    return np.concatenate([array(picture.image) for picture in draw(family, request)])


@pytest.mark.parametrize("width", [320, 576])
def test_left_and_right_match_and_do_not_without_the_flag(width: int, family: Any) -> None:
    request = replace(REQUEST, width=width, height=64, seeds=(1, 2, 3))
    edge, inner = seam(stacked(family, request))
    assert edge <= inner
    edge, inner = seam(stacked(family, replace(request, panorama=False)))
    assert edge > inner


def test_no_place_of_the_ring_is_special(family: Any) -> None:
    (straight,), (turned,) = family.encode(REQUEST), family.encode(REQUEST)
    turned.latents = turned.latents.roll(16, dims=-1)
    straight, turned = advance_to_the_end(family, straight), advance_to_the_end(family, turned)
    assert torch.allclose(straight.latents.roll(16, dims=-1), turned.latents, atol=1e-3)


def test_two_thousand_pixels_are_drawn_in_batches_no_larger_than_the_picture(family: Any) -> None:
    request = replace(REQUEST, width=2048, num_inference_steps=1)
    (sample,) = family.encode(request)
    network, batches = sample.denoiser.predict, []

    def counted(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        batches.append(tuple(latents.shape))
        return network(latents, *rest)

    sample.denoiser = replace(sample.denoiser, predict=counted)
    picture = finish(advance_to_the_end(family, sample)).image
    assert (picture.width, picture.height) == (2048, 32)
    assert batches == [(8, 4, 4, 64)] * 8


def test_among_others_every_picture_is_the_one_drawn_alone(family: Any) -> None:
    requests = [
        REQUEST,
        replace(REQUEST, seeds=(2,), panorama=False),
        replace(REQUEST, seeds=(3,), scheduler=SchedulerChoice(name="EulerAncestralDiscreteScheduler")),
        replace(REQUEST, seeds=(4,), num_inference_steps=2),
        replace(REQUEST, seeds=(5,), guidance_scale=1.0),
    ]
    alone = [array(draw(family, request)[0].image) for request in requests]
    for picture, expected in zip(draw_moving_group(family, requests), alone, strict=True):
        assert largest_difference(picture, expected) <= 1
    assert len({picture.tobytes() for picture in alone}) == len(requests)


def test_a_panorama_leaves_nothing_behind(family: Any) -> None:
    ordinary = replace(REQUEST, panorama=False)
    before = draw(family, ordinary)[0].image
    (unfinished,) = family.encode(REQUEST)
    with torch.no_grad():
        step.advance([unfinished])
    assert draw(family, REQUEST)[0].image != before
    assert draw(family, ordinary)[0].image == before


def test_a_panorama_can_be_guided_and_merged_and_start_from_the_same_seed(family: Any) -> None:
    more = replace(REQUEST, height=64, self_attention=True, token_merging_ratio=0.5)
    pictures = {draw(family, request)[0].image.pixels for request in (replace(REQUEST, height=64), more)}
    assert len(pictures) == 2
    assert draw(family, more)[0].image.pixels in pictures


def test_sdxl_views_are_told_that_they_are_pictures_of_their_own_size(sdxl: Any) -> None:
    request = replace(REQUEST, pipeline="sdxl", width=2048)
    (sample,) = sdxl.encode(request)
    assert sample.conditioning.positive["time_ids"].tolist() == [[32, 1024, 0, 0, 32, 1024]]
    assert sample.sampler.model_input(sample.latents).shape == (16, 4, 4, 128)


def test_an_sdxl_panorama_is_seamless(sdxl: Any) -> None:
    request = replace(REQUEST, pipeline="sdxl", width=512, height=64, seeds=(1, 2), num_inference_steps=2)
    edge, inner = seam(stacked(sdxl, request))
    assert edge <= inner
    edge, inner = seam(stacked(sdxl, replace(request, panorama=False)))
    assert edge > inner


WAVES = np.sin(np.arange(320) / 320 * 10 * np.pi)[None, :, None] * np.array([70, 90, 50]) + 128
"""A picture whose left and right edges match."""


def test_a_picture_is_encoded_around_its_edges(family: Any) -> None:
    """Five equal waves have five equal pieces of latents, those at the edges included."""
    vae = family.modules["vae"]
    picture = (
        torch.from_numpy(np.broadcast_to(WAVES, (64, 320, 3)) / 127.5 - 1).permute(2, 0, 1)[None].float()
    )
    with torch.no_grad():
        ring, flat = (
            encode(vae, picture).mean.unflatten(-1, (5, 8)) for encode in (panorama.encode, codec.encode)
        )
    assert ring.std(dim=-2).max() < flat.std(dim=-2).max() / 10


@pytest.mark.parametrize("panorama_asked", [True, False])
def test_a_panorama_begins_with_the_ring_of_the_picture_that_is_redrawn(
    panorama_asked: bool, family: Any
) -> None:
    waves = np.broadcast_to(WAVES, (32, 320, 3)).astype(np.uint8)
    values = {field.name: getattr(REQUEST, field.name) for field in fields(REQUEST) if field.name != "kind"}
    image, mask = RGBImage(320, 32, waves.tobytes()), RGBImage(320, 32, b"\xff" * waves.size)
    request = Inpainting(**values | {"panorama": panorama_asked}, image=image, mask=mask, strength=0.7)
    (sample,) = family.encode(request)
    encode, vae = panorama.encode if panorama_asked else codec.encode, family.modules["vae"]
    with torch.no_grad():
        expected = encode(vae, codec.from_image(image, 32, 320)).sample(seeded(REQUEST.seeds[0]))
    assert torch.equal(sample.sampler._known, vae.config["scaling_factor"] * expected)


@pytest.mark.parametrize("size", [(9, 60), (8, 41), (5, 23)])
def test_enlarged_latents_are_a_ring_that_is_plainly_enlarged_inside(size: tuple[int, int]) -> None:
    latents = torch.randn(1, 4, 5, 23, generator=seeded(1))
    ring = panorama.enlarged(latents, size)
    plain = interpolate(latents, size=size, mode="bilinear")
    assert ring.shape == plain.shape
    assert torch.allclose(ring[..., 3:-3], plain[..., 3:-3], atol=1e-5)
    twice = panorama.enlarged(latents.roll(11, dims=-1), (5, 46))
    assert torch.allclose(twice, panorama.enlarged(latents, (5, 46)).roll(22, dims=-1), atol=1e-5)


def test_the_second_pass_of_highres_fix_begins_with_a_ring(family: Any) -> None:
    """What is lit at the left edge of the first pass shines around it in the second."""
    family.modules["unet"].register_to_config(sample_size=8)
    begins: list[Tensor] = []
    for lit in (0.0, 1e4):
        (first,) = family.encode(replace(REQUEST, width=256, height=64, highres_fix=True))
        first.latents = torch.zeros_like(first.latents)
        first.latents[..., 0] = lit
        begins.append(first.finish(first).latents)
    family.modules["unet"].register_to_config(sample_size=64)
    shine = (begins[1] - begins[0])[0, 0, 4]
    assert first.latents.shape == (1, 4, 4, 16)
    assert shine.nonzero().flatten().tolist() == [0, 1, 2, 31]
