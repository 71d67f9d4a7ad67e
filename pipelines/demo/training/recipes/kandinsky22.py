"""The recipe of Kandinsky's decoder, whose UNet draws an image embedding."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.kandinsky22 import EMBEDDING_WIDTH, unet
from pipelines.demo.training.recipes.diffusion import velocity_loss
from pipelines.demo.training.recipes.image_embeddings import embeddings, statistics
from pipelines.demo.training.recipes.latents import EncodedPictures, Size
from pipelines.demo.training.recipes.pictures import rendered
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import Scene, random_scene

PICTURES = {(256, 256): 4000, (512, 512): 2400, (768, 768): 2000}
"""The number of pictures of each size."""
ROUND, GUIDED = 2000, 2000
"""The steps of the first round, mostly with small pictures, which are many in a batch, and of each of three
guided rounds, with pictures of the sizes that are asked for."""
SHARES = ((0.65, 0.3, 0.05), (0.05, 0.4, 0.55))
"""The share of each size among the batches of the first round, and of the guided ones."""
GUIDANCE = 4.0
"""The guidance at which an embedding is to give its picture: the default of the server's page."""
AREA = 32 * 256 * 256
"""The pixels of a batch, whatever the size of its pictures; guided rounds have each picture twice."""
PLAIN_STEPS, PLAIN = 500, 0.4
"""The first steps, which show only medium shapes at the center, and the share of those later, beside those
that are drawn anyway."""
NOTHING, OPEN = 0.12, 0.08
"""The shares of embeddings that name nothing, and that name a part of the picture."""
BLUR = 0.15
"""The deviation of the noise in embeddings, which the prior's have, too."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder and of the text encoder.

    Args:
        folder: where encoded pictures are kept.
    """
    return Recipe(
        build=lambda: {"unet": unet().to(memory_format=torch.channels_last)},
        loss=_Drawing(folder, device),
        steps=ROUND + 3 * GUIDED,
        learning_rate=1e-3,
        orthogonal=("unet.",),
        orthogonal_rate=2e-3,
        restarts=(ROUND, ROUND + GUIDED, ROUND + 2 * GUIDED),
        cooler=(1, 1, 0.5, 0.5),
    )


class _Drawing:
    """The loss; after the first round it shows each picture twice, with its embedding and without."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._embeddings = embeddings(_scenes())
        self._mean, self._deviation = (each.to(device) for each in statistics())
        self._plain = [seed for seed, scene in enumerate(_scenes()) if scene.is_plain]
        self._alike = _alike()
        self._pictures = cache(self._encoded)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        begins, guided = step.number < PLAIN_STEPS, step.number >= ROUND
        size = (256, 256) if begins else dice.choices(tuple(PICTURES), SHARES[guided])[0]
        count = AREA // (size[0] * size[1])
        seeds = [self._seed(size, dice, plain=begins) for _ in range(count)]
        said = torch.stack([self._said(seed, dice) for seed in seeds])
        latents = self._pictures(size).get(size, seeds).to(self._device)
        generator = torch.Generator().manual_seed(step.seed)
        blur = BLUR * torch.rand(len(said), 1, generator=generator)
        said = said + blur * torch.randn(said.shape, generator=generator)
        if guided:
            said = torch.cat([said, torch.zeros_like(said)])
        given = {"image_embeds": self._mean + self._deviation * said.to(self._device)}
        network = modules["unet"]
        return velocity_loss(
            lambda noisy, times: network(noisy, times, None, added_cond_kwargs=given).sample.chunk(2, 1)[0],
            latents,
            latents,
            step.seed,
            guidance=GUIDANCE if guided else None,
        )

    def _encoded(self, size: Size) -> EncodedPictures:
        vae = trained_autoencoder().to(self._device)
        file = self._folder / f"{size[0]}x{size[1]}.pt"
        return EncodedPictures(vae, {size: PICTURES[size]}, _picture, file)

    def _seed(self, size: Size, dice: random.Random, *, plain: bool) -> int:
        """The seed of an encoded picture of that size."""
        if plain or dice.random() < PLAIN:
            return dice.choice([seed for seed in self._plain if seed < PICTURES[size]])
        return dice.randrange(PICTURES[size])

    def _said(self, seed: int, dice: random.Random) -> Tensor:
        """The (width,) embedding of all of a picture, of a part of it, or of nothing."""
        draw = dice.random()
        if draw < NOTHING:
            return torch.zeros(EMBEDDING_WIDTH)
        if draw < NOTHING + OPEN:
            part = dice.choice(_parts(_scenes()[seed]))
            return self._embeddings[self._alike[part]].mean(0)
        return self._embeddings[seed]


@cache
def _scenes() -> list[Scene]:
    """The scenes by seed."""
    return [random_scene(seed) for seed in range(max(PICTURES.values()))]


def _parts(scene: Scene) -> list[str]:
    """The things that a caption can name of a scene while it leaves the rest open."""
    (first, *_) = scene.shapes
    return [scene.ground, first.shape, f"{first.color} {first.shape}"]


def _alike() -> dict[str, list[int]]:
    """The scenes that have each part."""
    alike: dict[str, list[int]] = defaultdict(list)
    for seed, scene in enumerate(_scenes()):
        for part in _parts(scene):
            alike[part].append(seed)
    return alike


def _picture(width: int, height: int, seed: int) -> object:
    return rendered(random_scene(seed), width, height, seed)
