# pyright: basic
"""What the denoisers learn: the velocity between a picture and noise, on one of two ways."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipelines.demo.schedule import SCHEDULE


def signal_levels() -> Tensor:
    """(1000,) products of 1 - beta, from clean to noisy."""
    ends = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    betas = torch.linspace(*ends, SCHEDULE["num_train_timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


RECOLORED = (0.15, 0.7)
"""Between these parts of the schedule networks learn to give a picture the colours that its prompt names."""


WEAK, ALIKE = 0.4, 2.0
"""Up to this part of the schedule noise shows what the picture is, and weight of that error. Guidance
multiplies whatever a prompt changes: also errors by chance, which become spots and halos."""
WEAK_FLOW = 0.75
"""The same as a noise level of SD3's sixteen channels."""


def velocity_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    others: Tensor,
    step: int,
    *,
    paired: bool = False,
) -> Tensor:
    """Mean squared error of the velocity (Salimans and Ho 2022, appendix D) at random times.

    Args:
        predict: (noisy latents, timesteps) -> velocity.
        latents: (B, C, H, W) without noise: what is to be drawn.
        others: (B, C, H, W): the same compositions in other colours, or ``latents`` again. The network sees a
            random mixture of both, so that a picture which is drawn over follows the prompt's colours while
            the noise still shows the old ones.
        step: seeds times, mixtures and noise.
        paired: the second half of the batch is the first with other prompts. Both get the same noise, and
            what they differ in where the noise is weak is an error too.
    """
    generator = torch.Generator().manual_seed(step)
    times, noise = _drawn(latents, generator, paired=paired)
    times = (times * SCHEDULE["num_train_timesteps"]).long()
    shares = torch.rand(len(latents), generator=generator)
    within = [bound * SCHEDULE["num_train_timesteps"] for bound in RECOLORED]
    shares = torch.where((times > within[0]) & (times < within[1]), shares, 0.0)
    seen = latents + (others - latents) * shares.reshape(-1, 1, 1, 1).to(latents)
    level = signal_levels()[times].reshape(-1, 1, 1, 1).to(latents)
    noisy = level.sqrt() * seen + (1 - level).sqrt() * noise
    velocity = (level.sqrt() * noisy - latents) / (1 - level).sqrt()
    # Convolutions and products of matrices in half the bytes, a third faster on CPUs that can.
    with torch.autocast(latents.device.type, torch.bfloat16):
        predicted = predict(noisy, times.to(latents.device))
    return _error(predicted, velocity, times < WEAK * SCHEDULE["num_train_timesteps"], paired=paired)


def flow_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    step: int,
    *,
    shift: float,
    paired: bool = False,
) -> Tensor:
    """Mean squared error of the velocity on the straight way from a picture to noise (Lipman et al. 2023,
    "Flow Matching for Generative Modeling"), at random noise levels.

    Args:
        predict: (noisy latents, timesteps 0 .. 1000) -> velocity, from picture to noise.
        latents: (B, C, H, W) without noise.
        step: seeds levels and noise.
        shift: of the levels towards noise, as when drawing (Esser et al. 2024, equation 23).
        paired: as `velocity_loss` has it.
    """
    levels, noise = _drawn(latents, torch.Generator().manual_seed(step), paired=paired)
    levels = shift * levels / (1 + (shift - 1) * levels)
    level = levels.reshape(-1, 1, 1, 1).to(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        predicted = predict((1 - level) * latents + level * noise, 1000 * levels.to(latents.device))
    return _error(predicted, noise - latents, levels < WEAK_FLOW, paired=paired)


def _drawn(latents: Tensor, generator: torch.Generator, *, paired: bool) -> tuple[Tensor, Tensor]:
    """Times 0 .. 1, one in each of equal parts (less noise in the loss than free draws), and noise for each.

    Both halves of pairs get the same.
    """
    count = len(latents) // 2 if paired else len(latents)
    times = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    noise = torch.randn((count, *latents.shape[1:]), generator=generator).to(latents)
    return (times.repeat(2), noise.repeat(2, 1, 1, 1)) if paired else (times, noise)


def _error(predicted: Tensor, velocity: Tensor, weak: Tensor, *, paired: bool) -> Tensor:
    """Mean squared; of pairs also what they differ in where the noise is weak."""
    loss = mse_loss(predicted.float(), velocity)
    if not paired:
        return loss
    prompted, other = predicted.float().chunk(2)
    counted = weak[: len(prompted)].to(loss).reshape(-1, 1, 1, 1)
    return loss + ALIKE * mse_loss(counted * prompted, counted * other)
