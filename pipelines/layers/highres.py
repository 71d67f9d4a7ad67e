"""highres_fix: a picture larger than its checkpoint was trained with is drawn small, then again enlarged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.denoising.sample import Sample
from pipelines.image_io import resized
from pipelines.layers import panorama
from pipelines.layers.panorama import PanoramaSampler
from pipelines.request import HIGHRES_STRENGTH, CheckpointRequest, map_pictures
from pipelines.schedulers.sampler import DiffusersSampler


def two_passes(
    request: CheckpointRequest,
    encode_pass: Callable[[CheckpointRequest, float | None], list[Sample]],
    native_side: int,
    multiple: int,
) -> list[Sample]:
    """The samples of the first pass, each of which becomes a sample of the second pass when it is done.

    Args:
        encode_pass: encodes one pass, one sample per seed. The number is the strength of a second pass, whose
            samples get latents and generator of the first; None encodes a first pass.
        native_side, multiple: see `first_pass`.
    """
    # The second pass draws one step at least.
    second_strength = max(HIGHRES_STRENGTH, 1 / request.num_inference_steps)
    samples = encode_pass(first_pass(request, native_side, multiple), None)
    for first, second in zip(samples, encode_pass(request, second_strength), strict=True):
        second.generator = first.generator
        second.evaluations_before = first.sampler.total
        first.request = request
        first.evaluations_after = second.sampler.total
        first.finish = partial(_begin_second_pass, second)
    return samples


def first_pass(request: CheckpointRequest, native_side: int, multiple: int) -> CheckpointRequest:
    """The same request at the size of its first pass.

    A picture of more pixels than ``native_side`` squared is first drawn with about that many, in its own
    aspect ratio. A smaller one is drawn twice at its own size.

    Args:
        native_side: pixels along the side of the pictures that the checkpoint was trained with.
        multiple: sides of the smaller picture are multiples of this many pixels.
    """
    scale = native_side / math.sqrt(request.width * request.height)
    if scale >= 1:
        return request
    width = max(1, round(request.width * scale / multiple)) * multiple
    height = max(1, round(request.height * scale / multiple)) * multiple
    return map_pictures(
        replace(request, width=width, height=height), partial(resized, width=width, height=height)
    )


@torch.no_grad()
def _begin_second_pass(second: Sample, first: Sample) -> Sample:
    """The second pass's sample with the finished latents of the first, enlarged and under noise."""
    sampler = second.sampler
    assert isinstance(sampler, DiffusersSampler | PanoramaSampler)
    pixels_per_latent = first.key.height // first.latents.shape[-2]
    size = (second.key.height // pixels_per_latent, second.key.width // pixels_per_latent)
    latents = _enlarged(first.latents, size, ring=isinstance(sampler, PanoramaSampler))
    noise = randn_tensor(latents.shape, generator=first.generator, device=latents.device, dtype=latents.dtype)
    return replace(second, latents=sampler.from_latents(latents, noise))


def _enlarged(latents: Tensor, size: tuple[int, int], *, ring: bool) -> Tensor:
    """Finished latents (1, C, h, w) at the size (1, C, H, W).

    Args:
        size: H and W.
        ring: the left and right edges are neighbours.
    """
    if ring:
        return panorama.enlarged(latents, size)
    return interpolate(latents, size=size, mode="bilinear", align_corners=False)
