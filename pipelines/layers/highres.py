"""highres_fix: a picture larger than its checkpoint knows is composed small and drawn again larger."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.denoising.sample import Conditioning, Sample
from pipelines.group import GroupKey
from pipelines.image_io import resized
from pipelines.layers import panorama
from pipelines.layers.panorama import PanoramaSampler
from pipelines.request import HIGHRES_STRENGTH, Prompted, map_pictures
from pipelines.schedulers.sampler import DiffusersSampler

P = TypeVar("P", bound=Prompted)


def first_pass(request: P, native_side: int, multiple: int) -> P:
    """The same request at the size of its first pass; itself where that is the asked size.

    A picture of more pixels than ``native_side`` squared is composed with about so many, in its own aspect
    ratio. A smaller one is composed and redrawn at its own size.

    Args:
        native_side: pixels along the side of the pictures that the checkpoint was trained with.
        multiple: sides of the smaller picture are multiples of this many pixels.
    """
    scale = native_side / math.sqrt(request.width * request.height)
    if not request.highres_fix or scale >= 1:
        return request
    width, height = (
        max(1, round(side * scale / multiple)) * multiple for side in (request.width, request.height)
    )
    smaller = replace(request, width=width, height=height)
    return map_pictures(smaller, lambda picture: resized(picture, width, height))


def strength(request: Prompted) -> float:
    """Of the second pass, which draws one step at least."""
    return max(HIGHRES_STRENGTH, 1 / request.num_inference_steps)


def followed_by_second_pass(
    first: Sample,
    key: GroupKey,
    sampler: DiffusersSampler | PanoramaSampler,
    conditioning: Conditioning | None = None,
) -> Sample:
    """The first pass's sample; when it is done, its latents are enlarged and drawn again.

    The second pass's noise comes from the same generator as the first one's.

    Args:
        key: of the second pass; its height and width are those of the latents.
        sampler: of the second pass.
        conditioning: of the second pass where the network is told the picture's size.
    """
    second = replace(
        first,
        key=key,
        conditioning=conditioning or first.conditioning,
        sampler=sampler,
        evaluations_before=first.sampler.total,
    )
    return replace(first, finish=partial(_second_pass, second, sampler), evaluations_after=sampler.total)


@torch.no_grad()
def _second_pass(second: Sample, sampler: DiffusersSampler | PanoramaSampler, first: Sample) -> Sample:
    pixels_per_latent = first.key.height // first.latents.shape[-2]
    size = (second.key.height // pixels_per_latent, second.key.width // pixels_per_latent)
    latents = _enlarged(first.latents, size, ring=isinstance(sampler, PanoramaSampler))
    noise = randn_tensor(latents.shape, generator=first.generator, device=latents.device, dtype=latents.dtype)
    return replace(second, latents=sampler.from_latents(latents, noise))


def _enlarged(latents: Tensor, size: tuple[int, int], *, ring: bool) -> Tensor:
    """(1, C, H, W) of finished latents.

    Args:
        size: H and W.
        ring: the left and right edges are neighbours.
    """
    if ring:
        return panorama.enlarged(latents, size)
    return interpolate(latents, size=size, mode="bilinear", align_corners=False)
