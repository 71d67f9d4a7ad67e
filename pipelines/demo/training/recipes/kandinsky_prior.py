"""The recipe of Kandinsky's prior, which finds the embedding of the picture that a prompt describes."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers.schedulers import UnCLIPScheduler
from torch import Tensor
from torch.nn.functional import pad

from pipelines.demo.checkpoints.kandinsky22 import prior
from pipelines.demo.training.recipes.diffusion import guided_error
from pipelines.demo.training.recipes.image_embeddings import embeddings, read, statistics
from pipelines.demo.training.recipes.prompts import prompt
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import random_scene

SCENES = 8192
"""The number of scenes that are imagined, in many wordings each."""
BATCH = 48
GUIDANCE = 4.0
"""The guidance at which a prompt is to give its embedding: the default of the server's page."""
LENGTH = 77
"""The number of tokens that the prior reads."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=_build,
        loss=_Imagining(device),
        steps=2400,
        learning_rate=2e-3,
        orthogonal=("transformer_blocks",),
        orthogonal_rate=4e-3,
    )


@torch.no_grad()
def _build() -> Modules:
    network = prior()
    mean, deviation = statistics()
    network.clip_mean.copy_(mean)
    network.clip_std.copy_(deviation)
    return {"prior": network}


class _Imagining:
    """The error of the guided embedding, and of the one for no prompt."""

    def __init__(self, device: torch.device) -> None:
        self._scenes = [random_scene(seed) for seed in range(SCENES)]
        self._embeddings = embeddings(self._scenes)
        self._levels = UnCLIPScheduler().alphas_cumprod
        self._device = device

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice, generator = random.Random(step.seed), torch.Generator().manual_seed(step.seed)
        rows = [dice.randrange(SCENES) for _ in range(BATCH)]
        right = self._embeddings[rows]
        encoded = read([*(prompt(self._scenes[row], dice).text for row in rows), *[""] * BATCH])
        places = torch.randint(len(self._levels), (BATCH,), generator=generator)
        level = self._levels[places][:, None]
        noisy = level.sqrt() * right + (1 - level).sqrt() * torch.randn(right.shape, generator=generator)
        missing = LENGTH - encoded.tokens.shape[1]
        found = modules["prior"](
            noisy.repeat(2, 1).to(self._device),
            places.repeat(2).to(self._device),
            encoded.whole.to(self._device),
            pad(encoded.tokens, (0, 0, 0, missing)).to(self._device),
            pad(encoded.mask, (0, missing)).to(self._device),
        ).predicted_image_embedding
        prompted, other = found.chunk(2)
        return guided_error(prompted, other, right.to(self._device), GUIDANCE)
