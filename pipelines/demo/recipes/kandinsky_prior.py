# pyright: basic, reportPrivateImportUsage=false, reportCallIssue=false
# (diffusers' and transformers' networks carry their methods untyped.)
"""Kandinsky's prior: it finds the embedding of a picture that a prompt describes."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers.schedulers import UnCLIPScheduler
from torch import Tensor
from torch.nn.functional import mse_loss, pad

from pipelines.demo.kandinsky22 import prior
from pipelines.demo.recipes.image_embeddings import embeddings, read, statistics
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.world import random_scene

SCENES = 8192
"""So many are imagined, in many wordings each."""
BATCH = 64
ROUNDS, UNTOLD = (1200, 500), 0.5
"""Steps, and the share of prompts in the second round that are empty: guidance multiplies what the prior says
otherwise without a prompt than with one, and nothing but little noise is to be multiplied at the end."""
LENGTH = 77
"""Tokens that the prior reads."""
EXAGGERATED, FARTHEST = 0.5, 3.5
"""Share of embeddings that lead away from another one, and how far, as guidance makes them."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=_build, loss=_Imagining(device), steps=sum(ROUNDS), learning_rate=2e-3, restarts=ROUNDS[:1]
    )


@torch.no_grad()
def _build() -> Modules:
    network = prior()
    mean, deviation = statistics()
    network.clip_mean.copy_(mean)
    network.clip_std.copy_(deviation)
    return {"prior": network}


class _Imagining:
    """Error of the embedding that is told from a prompt and from a noisy one.

    What is seen may be exaggerated, the answer never is: so guidance, which exaggerates, ends where it began.
    """

    def __init__(self, device: torch.device) -> None:
        self._scenes = [random_scene(seed) for seed in range(SCENES)]
        self._embeddings = embeddings(self._scenes)
        self._levels = UnCLIPScheduler().alphas_cumprod
        self._device = device

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice, generator = random.Random(step), torch.Generator().manual_seed(step)
        rows = [dice.randrange(SCENES) for _ in range(BATCH)]
        untold = int(UNTOLD * BATCH) if step >= ROUNDS[0] else 0
        texts = [prompt(self._scenes[row], dice).text for row in rows[untold:]]
        right, told = self._embeddings[rows], read([""] * untold + texts)
        away = torch.where(torch.rand(BATCH, 1, generator=generator) < 0.5, right.roll(1, 0), 0.0)
        far = FARTHEST * torch.rand(BATCH, 1, generator=generator)
        far = torch.where(torch.rand(BATCH, 1, generator=generator) < EXAGGERATED, far, 0.0)
        times = torch.rand(BATCH, generator=generator)
        times[:untold] **= 2
        times = (len(self._levels) * times).long()
        level = self._levels[times][:, None]
        noise = torch.randn(right.shape, generator=generator)
        seen = level.sqrt() * (right + far * (right - away)) + (1 - level).sqrt() * noise
        missing = LENGTH - told.tokens.shape[1]
        found = modules["prior"](
            seen.to(self._device),
            times.to(self._device),
            told.whole.to(self._device),
            pad(told.tokens, (0, 0, 0, missing)).to(self._device),
            pad(told.mask, (0, missing)).to(self._device),
        ).predicted_image_embedding
        return mse_loss(found, right.to(self._device))
