"""A picture enlarged tile by tile: where the tiles lie, and how what comes of them joins without seams."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipelines.denoising.sampler import Steps

TILE = 384
"""Pixels along the side of a tile, of the picture that goes in; a smaller picture is one tile."""

OVERLAP = 64
"""Pixels that neighbouring tiles share at least."""

MARGIN = 24
"""At a cut edge so many pixels count nothing: a network that looks no further than that sees no cut at all.
Between two margins one tile fades into the next."""


def starts(length: int, tile: int = TILE) -> list[int]:
    """Where the tiles of one axis begin: evenly spread, each of ``tile`` pixels or of the whole length."""
    if length <= tile:
        return [0]
    gaps = math.ceil((length - tile) / (tile - OVERLAP))
    return [round(index * (length - tile) / gaps) for index in range(gaps + 1)]


def weights(length: int, scale: int, tile: int = TILE) -> Tensor:
    """How much each tile counts along one axis, (tiles, length * scale), fp32; each column's sum is 1."""
    places = (torch.arange(length * scale, dtype=torch.float32) + 0.5) / scale
    rows: list[Tensor] = []
    for start in starts(length, tile):
        end = min(start + tile, length)
        # The picture's own edges are not cut.
        from_start = places - start if start > 0 else torch.full_like(places, torch.inf)
        from_end = end - places if end < length else torch.full_like(places, torch.inf)
        rows.append(((torch.minimum(from_start, from_end) - MARGIN) / (OVERLAP - 2 * MARGIN)).clamp(0, 1))
    stacked = torch.stack(rows)
    return stacked / stacked.sum(dim=0)


class TileSampler(Steps):
    """The enlargement of one picture, one tile per evaluation; an upscaler knows no time.

    The sample's latents are the picture, (1, 3, height, width) in 0 .. 1 on the host, and stay what they are;
    what comes of them is `enlarged`.

    Args:
        scale: of the network.
        device, dtype: of the network.
        tile: side of a tile in pixels.
    """

    def __init__(
        self, height: int, width: int, scale: int, device: torch.device, dtype: torch.dtype, tile: int = TILE
    ) -> None:
        self._scale = scale
        self._device = device
        self._dtype = dtype
        self._tile_height, self._tile_width = min(tile, height), min(tile, width)
        self._down = list(zip(starts(height, tile), weights(height, scale, tile), strict=True))
        self._across = list(zip(starts(width, tile), weights(width, scale, tile), strict=True))
        super().__init__(torch.zeros(len(self._down) * len(self._across), device=device))
        self._canvas: Tensor | None = None
        self._size = (height * scale, width * scale)

    @property
    def enlarged(self) -> Tensor:
        """(3, height * scale, width * scale) in 0 .. 1, fp32 on the host; complete when `done`."""
        if self._canvas is None:
            self._canvas = torch.zeros(3, *self._size)
        return self._canvas

    def model_input(self, latents: Tensor) -> Tensor:
        (top, _), (left, _) = self._here()
        tile = latents[:, :, top : top + self._tile_height, left : left + self._tile_width]
        return tile.to(self._device, self._dtype)

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        (top, down), (left, across) = self._here()
        rows = slice(top * self._scale, (top + self._tile_height) * self._scale)
        columns = slice(left * self._scale, (left + self._tile_width) * self._scale)
        self.enlarged[:, rows, columns] += prediction[0].float().cpu() * down[rows, None] * across[columns]
        self._position += 1
        return latents

    def _here(self) -> tuple[tuple[int, Tensor], tuple[int, Tensor]]:
        row, column = divmod(self._position, len(self._across))
        return self._down[row], self._across[column]
