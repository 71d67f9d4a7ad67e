"""Batches for a denoiser that draws figures in given poses."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelines.control.skeletons import draw_skeletons
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder, with_sixteen_channels
from pipelines.demo.training.recipes.latents import EncodedPictures, Size
from pipelines.demo.world.figure import FIGURE_COLORS, Figure, render_figure
from pipelines.demo.world.poses import random_figure
from pipelines.images.codec import rows_of

PICTURES = {(512, 512): 4000, (416, 640): 500, (640, 416): 300}
FARTHEST = 2
"""The latents by which a picture and its skeleton are moved, so that one picture becomes many."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Latents (B, 16, H / 16, W / 16) of figures, of the same in other colours, and of their skeletons."""

    latents: Tensor
    others: Tensor
    skeletons: Tensor
    figures: list[Figure]


class PosedFigures:
    """Figures in random poses, encoded once.

    Args:
        folder: where the latents are kept.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        vae = with_sixteen_channels(trained_autoencoder()).to(device)
        self._figures = EncodedPictures(vae, PICTURES, _figure, folder / "figures.pt")
        self._recolored = EncodedPictures(vae, PICTURES, _recolored_figure, folder / "recolored.pt")
        self._skeletons = EncodedPictures(vae, PICTURES, _skeleton, folder / "skeletons.pt")

    def batch(self, size: Size, count: int, dice: random.Random) -> Figures:
        """A batch of as many figures, all of one size."""
        seeds = [dice.randrange(PICTURES[size]) for _ in range(count)]
        across, down = (dice.randint(-FARTHEST, FARTHEST) for _ in range(2))
        encoded = (self._figures, self._recolored, self._skeletons)
        latents, others, skeletons = (_moved(each.get(size, seeds), across, down) for each in encoded)
        return Figures(latents, others, skeletons, [random_figure(seed, size) for seed in seeds])


def _moved(latents: Tensor, across: int, down: int) -> Tensor:
    """Latents that are moved; those at an edge, mostly ground, fill what is left free."""
    height, width = latents.shape[-2:]
    framed = pad(latents, (FARTHEST,) * 4, mode="replicate")
    left, top = FARTHEST - across, FARTHEST - down
    return framed[..., top : top + height, left : left + width]


def _figure(width: int, height: int, seed: int) -> np.ndarray:
    return rows_of(render_figure(random_figure(seed, (width, height)), (width, height)))


def _recolored_figure(width: int, height: int, seed: int) -> np.ndarray:
    color, ground = random.Random(-seed - 1).choice(FIGURE_COLORS)
    recolored = replace(random_figure(seed, (width, height)), color=color, ground=ground)
    return rows_of(render_figure(recolored, (width, height)))


def _skeleton(width: int, height: int, seed: int) -> np.ndarray:
    """A skeleton, halved as the large autoencoder halves the server's."""
    person = random_figure(seed, (width, height)).person
    drawn = rows_of(draw_skeletons(2 * width, 2 * height, [person]))
    return drawn.reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)
