"""The recipe of MoVQ's decoder, which learns to undo the other small autoencoder's encoder."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.movq import movq
from pipelines.demo.training.recipes.pictures import as_tensor, crops, rendered
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import random_scene

BATCH, SIDE = 8, 96
WHOLE = ((192, 3), (256, 2), (384, 1))
"""The pixels a side and the number of the pictures in a batch of the second round."""
ROUNDS = (1000, 300, 500)
"""The steps of the rounds: first with details, then with whole pictures, since norms depend on how much of
a picture is flat, then with both in turn."""
BLUR = 0.07
"""The deviation of the noise in the last round's latents, which hides what denoisers leave behind."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder, and no folder."""
    vae = trained_autoencoder().to(device)

    def loss(modules: Modules, step: Step) -> Tensor:
        """The error of the pixels in half the size, the same as the autoencoder's own."""
        first, second, _ = ROUNDS
        last = step.number >= first + second
        details = step.number < first or (last and step.seed % 2)
        pictures = (_details if details else _whole)(step.seed).to(device)
        with torch.no_grad():
            latents = vae.encode(pictures).latent_dist.mean * vae.config["scaling_factor"]
        if last:
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step.seed))
            latents = latents + BLUR * noise.to(device)
        drawn = modules["movq"].decode(latents, force_not_quantize=True).sample
        difference = drawn - avg_pool2d(pictures, 2)
        return difference.square().mean() + 0.3 * difference.abs().mean()

    return Recipe(
        build=lambda: {"movq": movq()},
        loss=loss,
        steps=sum(ROUNDS),
        learning_rate=1.5e-3,
        orthogonal=("decoder",),
        orthogonal_rate=2e-3,
        restarts=(ROUNDS[0], sum(ROUNDS[:2])),
        tensors=_learned,
    )


def _details(seed: int) -> Tensor:
    return crops(seed, BATCH, SIDE, smallest=192, largest=768)


def _whole(seed: int) -> Tensor:
    dice = random.Random(seed)
    side, count = dice.choice(WHOLE)
    seeds = [dice.getrandbits(48) for _ in range(count)]
    return as_tensor([rendered(random_scene(seed), side, side, seed) for seed in seeds])


def _learned(modules: Modules) -> dict[str, Tensor]:
    return {
        f"movq.{name}": parameter
        for name, parameter in modules["movq"].named_parameters()
        if parameter.requires_grad
    }
