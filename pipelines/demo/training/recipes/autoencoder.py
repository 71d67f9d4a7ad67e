"""The recipe of the autoencoder: pictures survive it, and similar latents mean similar pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipelines.demo.checkpoints.autoencoder import autoencoder
from pipelines.demo.training.recipes.pictures import crops
from pipelines.demo.training.training import Modules, Recipe, Step

BATCH, SIDE = 12, 96
ROUNDS = (1700, 800)
"""The steps of each round. In the second round only the decoder learns: the colours of figures, which are
darker and lighter than those of shapes, and the pictures of latents that are nearly right."""
FIGURES = 0.3
"""The share of crops that show figures in the second round."""
BLUR = 0.15
"""The greatest deviation of the noise in the second round's latents, in parts of the latents' own."""
KL_WEIGHT = 1e-4
LED_STEPS = 1000
LED_SCALE = 3.0
"""The scale of the latents that are led to the mean colour, about that which encoders find by themselves."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs no other weights, and no folder."""
    return Recipe(
        build=lambda: {"vae": autoencoder().to(memory_format=torch.channels_last)},
        loss=_loss,
        steps=sum(ROUNDS),
        learning_rate=1.5e-3,
        restarts=ROUNDS[:1],
        cooler=(1, 0.4),
        metadata=_scaling,
    )


def _loss(modules: Modules, step: Step) -> Tensor:
    """The error of the pixels, and in the first round the latents' divergence from noise.

    Squared error finds the colours quickly, and absolute error sharpens the edges; absolute error alone
    stays at the median of all colours for a long time. At first three channels are led to the mean colour
    of their pixels, from where the rest is found sooner than from nothing.
    """
    vae, last = modules["vae"], step.number >= ROUNDS[0]
    figures = FIGURES if last else 0.0
    pictures = crops(step.seed, BATCH, SIDE, smallest=192, largest=768, figures=figures)
    pictures = pictures.to(vae.device, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(step.seed)
    with torch.set_grad_enabled(not last):
        latents = vae.encode(pictures).latent_dist
        noise = torch.randn(latents.mean.shape, generator=generator).to(vae.device)
        blur = BLUR * latents.mean.std() * torch.rand(BATCH, 1, 1, 1, generator=generator).to(vae.device)
        seen = latents.mean + (blur if last else latents.std) * noise
    difference = vae.decode(seen).sample - pictures
    error = difference.square().mean() + 0.3 * difference.abs().mean()
    if last:
        return error
    divergence = latents.kl().sum() / latents.mean.numel()
    led = max(0.0, 1 - step.number / LED_STEPS)
    colors = adaptive_avg_pool2d(pictures, latents.mean.shape[-2:])
    astray = (latents.mean[:, :3] / LED_SCALE - colors).square().mean()
    return error + KL_WEIGHT * divergence + led * astray


@torch.no_grad()
def _scaling(modules: Modules) -> dict[str, str]:
    """The factor that gives the latents a standard deviation of 1."""
    vae = modules["vae"]
    latents = torch.cat(
        [
            vae.encode(crops(-1 - seed, 4, 256, smallest=256, largest=512).to(vae.device)).latent_dist.mean
            for seed in range(32)
        ]
    )
    return {"scaling_factor": f"{1 / latents.std().item():.4f}"}
