# pyright: basic
"""What the denoisers learn: the velocity between a picture and noise."""

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
    count = len(latents) // 2 if paired else len(latents)
    # One time in each of equal parts of the schedule: less noise in the loss than free draws.
    parts = torch.arange(count) + torch.rand(count, generator=generator)
    times = (parts * SCHEDULE["num_train_timesteps"] / count).long()
    noise = torch.randn((count, *latents.shape[1:]), generator=generator).to(latents)
    if paired:
        times, noise = times.repeat(2), noise.repeat(2, 1, 1, 1)
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
    loss = mse_loss(predicted.float(), velocity)
    if not paired:
        return loss
    prompted, other = predicted.float().chunk(2)
    weak = (times[:count] < WEAK * SCHEDULE["num_train_timesteps"]).to(loss).reshape(-1, 1, 1, 1)
    return loss + ALIKE * mse_loss(weak * prompted, weak * other)
