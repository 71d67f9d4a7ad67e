"""The recipe of an upscaler with which edges of the little world stay sharp in twice the size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.demo.checkpoints.upscaler import upscaler
from pipelines.demo.training.recipes.pictures import crops
from pipelines.demo.training.training import Modules, Recipe, Step

BATCH, SIDE = 16, 64


def recipe(folder: Path, device: torch.device) -> Recipe:
    return Recipe(
        build=lambda: {"upscaler": upscaler()},
        loss=_loss,
        steps=2000,
        learning_rate=1e-3,
        tensors=lambda modules: modules["upscaler"].state_dict(),
    )


def _loss(modules: Modules, step: Step) -> Tensor:
    """The mean absolute error of pictures that were halved and doubled again."""
    network = modules["upscaler"]
    pictures = crops(step.seed, BATCH, SIDE, smallest=128, largest=1024) / 2 + 0.5
    pictures = pictures.to(next(network.parameters()).device)
    halved = interpolate(pictures, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    return (network(halved) - pictures).abs().mean()
