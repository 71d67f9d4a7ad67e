"""Repainting a part of a picture: the rest is kept during the steps, and put back into the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipelines.denoising.sampler import AroundSampler
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.layers.panorama import PanoramaSampler
from pipelines.request import Inpainting, Prompted
from pipelines.schedulers.sampler import DiffusersSampler


class MaskedSampler(AroundSampler[DiffusersSampler | PanoramaSampler]):
    """A noise scheduler that moves only the masked part (`pipelines.denoising.sampler.Sampler`).

    After each step the rest is the picture again, under the very noise that the next evaluation expects
    (diffusers' inpainting with an ordinary network; Lugmayr et al. 2022, equations 8a to 8c).

    Args:
        known: (1, 4, h, w), latents of the whole picture.
        noise: (1, 4, h, w), the noise of the sample's first latents.
        mask: (1, 1, h, w), 1 where the picture is repainted, else 0.
    """

    def __init__(
        self, inner: DiffusersSampler | PanoramaSampler, known: Tensor, noise: Tensor, mask: Tensor
    ) -> None:
        super().__init__(inner)
        self._known = known
        self._noise = noise
        self._mask = mask

    def model_input(self, latents: Tensor) -> Tensor:
        return self._inner.model_input(latents)

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        latents = self._inner.step(prediction, latents, generator)
        known = self._known if self.done else self._inner.from_latents(self._known, self._noise)
        return (1 - self._mask) * known + self._mask * latents


def paints_masks_only(unet: Any) -> bool:
    """Whether a network is made for inpainting: its channels are latents (4), mask (1) and kept part (4)."""
    return unet.config.in_channels == 9


def masked_channels(mask: Tensor, kept: Tensor) -> Mapping[str, Tensor]:
    """The mask and the kept part, (1, 5, h, w), as `with_masked_channels` looks for them."""
    return {"masked_picture": torch.cat([mask, kept], dim=1)}


def with_masked_channels(latents: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    """The network's input: latents (N, 4, h, w), or with mask and kept part (N, 9, h, w)."""
    if "masked_picture" not in conditioning:
        return latents
    return torch.cat([latents, conditioning["masked_picture"]], dim=1)


def put_back(drawn: RGBImage, request: Prompted) -> RGBImage:
    """The drawn picture with every pixel that was not to be repainted as the caller sent it."""
    if not isinstance(request, Inpainting):
        return drawn
    mask = to_pil(request.mask).convert("L")
    return from_pil(Image.composite(to_pil(drawn), to_pil(request.image), mask))
