# pyright: basic, reportCallIssue=false, reportArgumentType=false
# (diffusers' networks carry their methods untyped.)
"""The autoencoder: pictures survive it, and neighbouring latents mean neighbouring pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipelines.demo.autoencoder import autoencoder
from pipelines.demo.recipes.pictures import crops
from pipelines.demo.training import Modules, Recipe, Step

BATCH, SIDE = 12, 96
KL_WEIGHT = 1e-4
LED_STEPS = 1000
LED_SCALE = 3.0
"""Of the latents that are led: what encoders find by themselves is about as large."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs no other weights, and no folder."""
    return Recipe(
        build=lambda: {"vae": autoencoder().to(memory_format=torch.channels_last)},
        loss=_loss,
        steps=1700,
        learning_rate=1.5e-3,
        said=_scaling,
    )


def _loss(modules: Modules, step: Step) -> Tensor:
    """Error of the pixels, and the latents' divergence from noise.

    Squared error finds the colours quickly, absolute error sharpens the edges; absolute error alone stays at
    the median of all colours for a long time. At first three channels are led to the mean colour of their
    pixels, from where the rest is found sooner than from nothing.
    """
    vae = modules["vae"]
    pictures = crops(step.seed, BATCH, SIDE, smallest=192, largest=768)
    pictures = pictures.to(vae.device, memory_format=torch.channels_last)
    latents = vae.encode(pictures).latent_dist
    noise = torch.randn(latents.mean.shape, generator=torch.Generator().manual_seed(step.seed))
    drawn = vae.decode(latents.mean + latents.std * noise.to(vae.device)).sample
    divergence = latents.kl().sum() / latents.mean.numel()
    difference = drawn - pictures
    led = max(0.0, 1 - step.number / LED_STEPS)
    colors = adaptive_avg_pool2d(pictures, latents.mean.shape[-2:])
    astray = (latents.mean[:, :3] / LED_SCALE - colors).square().mean()
    error = difference.square().mean() + 0.3 * difference.abs().mean()
    return error + KL_WEIGHT * divergence + led * astray


@torch.no_grad()
def _scaling(modules: Modules) -> dict[str, str]:
    """What divides the latents by their standard deviation."""
    vae = modules["vae"]
    latents = torch.cat(
        [
            vae.encode(crops(-1 - seed, 4, 256, smallest=256, largest=512).to(vae.device)).latent_dist.mean
            for seed in range(32)
        ]
    )
    return {"scaling_factor": f"{1 / latents.std().item():.4f}"}
