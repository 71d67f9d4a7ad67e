"""Pictures of the little world as tensors."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.demo.world.figure import render_figure
from pipelines.demo.world.poses import random_figure
from pipelines.demo.world.world import STYLES, Scene, Style, random_scene, render
from pipelines.images.codec import rows_of

_EMPTY = 12.0
"""The standard deviation of a crop's bytes below which it is all ground."""
_LONELY = 0.05
"""The share of crops that may be all ground."""
_STYLED = 0.25
"""The share of crops whose shapes are striped or outlined."""


def as_tensor(pixels: Sequence[np.ndarray]) -> Tensor:
    """Pictures, B times (H, W, 3) bytes, as a tensor (B, 3, H, W) in -1 .. 1."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def rendered(scene: Scene, width: int, height: int, seed: int, styles: Collection[Style] = ()) -> np.ndarray:
    """A scene as (height, width, 3) bytes."""
    return rows_of(render(scene, (width, height), seed, styles))


def crops(seed: int, count: int, side: int, *, smallest: int, largest: int, figures: float = 0.0) -> Tensor:
    """Details of the trained part of the world, others for every seed.

    Args:
        smallest, largest: pixels a side of the pictures from which the details are cut.
        figures: the share of details from pictures of figures.
    Returns:
        (count, 3, side, side) in -1 .. 1.
    """
    each = [_crop(seed * count + index, side, smallest, largest, figures) for index in range(count)]
    return as_tensor(each)


def _crop(seed: int, side: int, smallest: int, largest: int, figures: float) -> np.ndarray:
    dice = random.Random(seed)
    whole = round(math.exp(dice.uniform(math.log(max(smallest, side)), math.log(largest))))
    styles: list[Style] = []
    if dice.random() < _STYLED:
        styles = [style for style in STYLES if dice.random() < 0.6]
    if figures and dice.random() < figures:
        picture = rows_of(render_figure(random_figure(seed), whole))
    else:
        picture = rendered(random_scene(seed), whole, whole, seed, styles)
    while True:
        left, top = dice.randint(0, whole - side), dice.randint(0, whole - side)
        cut = picture[top : top + side, left : left + side]
        if cut.std() > _EMPTY or dice.random() < _LONELY:
            return cut
