"""Pictures of the little world, encoded once, since the training of a denoiser sees each several times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch import Tensor

from pipelines.demo.training.recipes.pictures import as_tensor
from pipelines.weights.atomic import replacing

Size = tuple[int, int]
"""The width and height of a picture, in pixels."""

Pixels = Callable[[int, int, int], Any]
"""A function (width, height, seed) -> (height, width, 3) bytes."""


class EncodedPictures:
    """Latents by size and seed, scaled to a standard deviation of 1.

    Args:
        counts: the number of pictures of each size; their seeds begin at 0 for every size.
        draw: draws the picture of a seed.
        file: the file of the latents, so that a training that is resumed does not encode them again.
    """

    def __init__(self, vae: AutoencoderKL, counts: Mapping[Size, int], draw: Pixels, file: Path) -> None:
        if not file.exists():
            encoded = [_encoded(vae, size, range(count), draw) for size, count in counts.items()]
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file, file.with_suffix(".part")) as aside:
                torch.save(encoded, aside)
        self._latents = dict(zip(counts, torch.load(file, weights_only=True), strict=True))

    def get(self, size: Size, seeds: Sequence[int]) -> Tensor:
        """The latents (len(seeds), C, height / factor, width / factor)."""
        return self._latents[size][list(seeds)].float()


@torch.no_grad()
def _encoded(vae: AutoencoderKL, size: Size, seeds: range, draw: Pixels) -> Tensor:
    batch = max(1, 4 * 256 * 256 // (size[0] * size[1]))
    vae.to(memory_format=torch.channels_last)
    parts: list[Tensor] = []
    for first in track(range(0, len(seeds), batch), f"encoding {size[0]}x{size[1]}"):
        pictures = as_tensor([draw(*size, seed) for seed in seeds[first : first + batch]])
        pictures = pictures.to(vae.device, memory_format=torch.channels_last)
        # Three times as fast on CPUs that can, and right to half a hundredth of the latents' deviation.
        with torch.autocast(vae.device.type, torch.bfloat16):
            parts.append(vae.encode(pictures).latent_dist.mean.float() * vae.config["scaling_factor"])
    return torch.cat(parts).half().cpu()
