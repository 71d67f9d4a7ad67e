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

from pipelines.demo.kandinsky22 import LARGEST, prior
from pipelines.demo.recipes.image_embeddings import Read, embeddings, read, statistics
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.world import random_scene

SCENES = 8192
"""So many are imagined, in many wordings each."""
BATCH = 64
ROUNDS = (1200, 900)
"""Steps. In the second round the prior sees what guidance makes of its own answers."""
GUIDED = 6.0
"""Strongest guidance there."""
SHOWN, ALIKE = 0.5, 1.0
"""Before this part of the schedule noise shows the embedding, and weight of what is answered otherwise with a
prompt than without one there: guidance multiplies that."""
LENGTH = 77
"""Tokens that the prior reads."""
EXAGGERATED, FARTHEST = 0.5, 3.5
"""Share of embeddings that lead away from another one, and how far, as guidance makes them."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=_build,
        loss=_Imagining(device),
        steps=sum(ROUNDS),
        learning_rate=2e-3,
        orthogonal=("transformer_blocks",),
        orthogonal_rate=4e-3,
        restarts=ROUNDS[:1],
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
        guided = step >= ROUNDS[0]
        rows = [dice.randrange(SCENES) for _ in range(BATCH // 2 if guided else BATCH)]
        texts = [prompt(self._scenes[row], dice).text for row in rows]
        told, right = read(texts + [""] * len(rows) if guided else texts), self._embeddings[rows]
        away = torch.where(torch.rand(len(rows), 1, generator=generator) < 0.5, right.roll(1, 0), 0.0)
        far = FARTHEST * torch.rand(len(rows), 1, generator=generator)
        far = torch.where(torch.rand(len(rows), 1, generator=generator) < EXAGGERATED, far, 0.0)
        times = torch.rand(len(rows), generator=generator)
        seen = right + far * (right - away)
        if guided:
            with torch.no_grad():
                later = times + (1 - times) * torch.rand(len(rows), generator=generator)
                prompted, other = self._found(modules, seen, later, told, generator).cpu().chunk(2)
                strength = 1 + (GUIDED - 1) * torch.rand(len(rows), 1, generator=generator)
                led = (other + strength * (prompted - other)).clamp(-LARGEST, LARGEST)
                seen = torch.lerp(right, led, torch.rand(len(rows), 1, generator=generator))
        found = self._found(modules, seen, times, told, generator)
        wanted = right.repeat(len(found) // len(right), 1).to(self._device)
        loss = mse_loss(found, wanted)
        if not guided:
            return loss
        shown = (times < SHOWN).to(found)[:, None]
        prompted, other = found.chunk(2)
        return loss + ALIKE * mse_loss(shown * prompted, shown * other)

    def _found(
        self, modules: Modules, seen: Tensor, times: Tensor, told: Read, generator: torch.Generator
    ) -> Tensor:
        """(B, width) for B texts, of embeddings with noise; two halves of the texts may see the same ones."""
        places = (len(self._levels) * times).long()
        level = self._levels[places][:, None]
        noise = torch.randn(seen.shape, generator=generator)
        noisy = level.sqrt() * seen + (1 - level).sqrt() * noise
        repeats = len(told.whole) // len(seen)
        missing = LENGTH - told.tokens.shape[1]
        return modules["prior"](
            noisy.repeat(repeats, 1).to(self._device),
            places.repeat(repeats).to(self._device),
            told.whole.to(self._device),
            pad(told.tokens, (0, 0, 0, missing)).to(self._device),
            pad(told.mask, (0, missing)).to(self._device),
        ).predicted_image_embedding
