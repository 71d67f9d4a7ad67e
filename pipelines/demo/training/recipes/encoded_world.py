"""Batches for denoisers: latents, their captions, and the same compositions in other colours."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.training.recipes.latents import EncodedPictures, Size
from pipelines.demo.training.recipes.pictures import rendered
from pipelines.demo.training.recipes.prompts import Prompt
from pipelines.demo.world.palette import COLORS
from pipelines.demo.world.world import ColoredShape, Scene, random_scene

PICTURES = {(256, 256): 5000, (512, 512): 3000, (512, 384): 400, (384, 512): 400}
RECOLORED = {(256, 256): 2000, (512, 512): 600, (512, 384): 100, (384, 512): 100}
"""The pictures of each size, and how many of them have a second one in other colours."""
AREA = 32 * 256 * 256
"""The pixels of a batch, whatever the size of its pictures."""
AGAIN = 0.75
"""The share of pictures that have a second one, beside those that are drawn anyway."""
PLAIN = 0.4
"""The share of medium shapes at the center, beside those that are drawn anyway."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Latents (B, 4, H / 16, W / 16) and their prompts.

    Attributes:
        others: latents of the same compositions in other colours where these exist and the prompt names all
            colours, else ``latents`` again.
    """

    latents: Tensor
    others: Tensor
    texts: list[str]


class EncodedWorld:
    """Pictures of the trained part of the world, encoded once.

    Args:
        folder: where the latents are kept.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        vae = trained_autoencoder().to(device)
        self._pictures = EncodedPictures(vae, PICTURES, _picture, folder / "pictures.pt")
        self._recolored = EncodedPictures(vae, RECOLORED, _recolored_picture, folder / "recolored.pt")
        self._plain = {
            size: [seed for seed in range(count) if random_scene(seed).is_plain]
            for size, count in PICTURES.items()
        }

    def batch(
        self,
        size: Size,
        dice: random.Random,
        prompt: Callable[[Scene, random.Random], Prompt],
        *,
        plain: bool = False,
    ) -> Batch:
        """A batch of as many pictures as fill `AREA`.

        Args:
            plain: whether there are only medium shapes at the center.
        """
        seeds = [self._seed(size, dice, plain=plain) for _ in range(AREA // (size[0] * size[1]))]
        prompts = [prompt(random_scene(seed), dice) for seed in seeds]
        latents = self._pictures.get(size, seeds)
        others = latents.clone()
        for row, (seed, said) in enumerate(zip(seeds, prompts, strict=True)):
            if said.complete and seed < RECOLORED[size]:
                others[row] = self._recolored.get(size, [seed])[0]
        return Batch(latents, others, [said.text for said in prompts])

    def _seed(self, size: Size, dice: random.Random, *, plain: bool) -> int:
        """The seed of an encoded picture of that size."""
        if plain or dice.random() < PLAIN:
            return dice.choice(self._plain[size])
        if dice.random() < AGAIN:
            return dice.randrange(RECOLORED[size])
        return dice.randrange(PICTURES[size])


def _picture(width: int, height: int, seed: int) -> np.ndarray:
    return rendered(random_scene(seed), width, height, seed)


def _recolored_picture(width: int, height: int, seed: int) -> np.ndarray:
    return rendered(_recolored(random_scene(seed), seed), width, height, seed)


def _recolored(scene: Scene, seed: int) -> Scene:
    """The same composition, in which each colour may be another one."""
    dice = random.Random(-seed - 1)
    while True:
        colors = [dice.choice(COLORS) if dice.random() < 0.7 else shape.color for shape in scene.shapes]
        ground = dice.choice(COLORS) if dice.random() < 0.5 else scene.ground
        if ground in colors:
            continue
        shapes = [ColoredShape(old.shape, color) for old, color in zip(scene.shapes, colors, strict=True)]
        if len(set(shapes)) < len(shapes):
            continue
        recolored = replace(scene, ground=ground, shapes=tuple(shapes))
        if not recolored.held_out:
            return recolored
