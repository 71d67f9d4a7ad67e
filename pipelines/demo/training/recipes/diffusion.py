"""What the denoisers learn: the velocity between a picture and noise, on one of two ways.

Guidance shows ``guidance`` times what a prompt changes. In a world where a prompt says nearly everything that
is far too much: networks that answer a prompt exactly draw it in colours which no picture has, and find
ragged shapes in them. So it is the guided answer that is to be exact, at the guidance with which pictures are
drawn; what a network answers to a prompt alone is then a small step away from what it answers to none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipelines.demo.checkpoints.schedule import SCHEDULE


def signal_levels() -> Tensor:
    """(1000,) products of 1 - beta, from clean to noisy."""
    ends = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    betas = torch.linspace(*ends, SCHEDULE["num_train_timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


DRAWN_OVER = (0.53, 12.5)
"""Between these noises, in parts of the signal, drawing over a picture begins: with less nothing is to be
changed, and more of it hides the old colours anyway."""
CLEAR, CLEARLY = 0.6, 0.75
"""Up to this part of the schedule noise shows where shapes end, and the share of times there: later ones only
tell of large areas, which is soon learned."""
FREE = 0.1
"""Weight of what is answered to no prompt, beside the guided answer."""
FREE_FLOW = 0.5
"""The same of flows, beside guided answers that count less."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, timesteps) -> velocity."""


def velocity_loss(
    predict: Predict, latents: Tensor, others: Tensor, step: int, *, guidance: float | None = None
) -> Tensor:
    """Mean squared error of the velocity (Salimans and Ho 2022, appendix D) at random times.

    Args:
        predict: is asked twice with the same noise where there is guidance: the first half of what it sees is
            to be drawn by prompts, the second by none.
        latents: (B, C, H, W) without noise: what is to be drawn.
        others: (B, C, H, W): the same compositions in other colours, or ``latents`` again. The network sees a
            random mixture of both, so that a picture which is drawn over follows the prompt's colours while
            the noise still shows the old ones.
        step: seeds times, mixtures and noise.
        guidance: of the answer that is to be right.
    """
    generator = torch.Generator().manual_seed(step)
    times, noise = _drawn(latents, generator)
    times = torch.where(
        times < CLEARLY, times * CLEAR / CLEARLY, 1 - (1 - times) * (1 - CLEAR) / (1 - CLEARLY)
    )
    times = (times * SCHEDULE["num_train_timesteps"]).long()
    levels = signal_levels()[times]
    seen = _mixed(latents, others, ((1 - levels) / levels).sqrt(), generator)
    level, noisy = _level(times, latents), noised(seen, noise, times)
    wanted, free = ((level.sqrt() * noisy - each) / (1 - level).sqrt() for each in (latents, seen))
    guided = partial(guided_error, wanted=wanted, guidance=guidance, free=free) if guidance else None
    return _error(predict, noisy, times.to(latents.device), wanted, guided)


def noised(latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """(B, C, H, W): pictures as they are seen at the times (B,) of the schedule."""
    level = _level(times, latents)
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def _level(times: Tensor, latents: Tensor) -> Tensor:
    """(B, 1, 1, 1) of the signal in each."""
    return signal_levels()[times].reshape(-1, 1, 1, 1).to(latents)


def _mixed(latents: Tensor, others: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, H, W): what is still seen of other colours under so much noise (B,) while a picture is drawn
    over: at random, up to all of them where that begins.

    On the straight way to the new ones the old ones go as the noise does, in parts of the signal; who stopped
    learning of them earlier would stop half-way.
    """
    first, last = DRAWN_OVER
    most = torch.where(noise < last, (noise / first).clamp(max=1), 0)
    shares = most * torch.rand(len(latents), generator=generator)
    return latents + (others - latents) * shares.reshape(-1, 1, 1, 1).to(latents)


def flow_loss(
    predict: Predict,
    latents: Tensor,
    others: Tensor,
    step: int,
    *,
    shift: float,
    guidance: float | None = None,
) -> Tensor:
    """Mean squared error of the velocity on the straight way from a picture to noise (Lipman et al. 2023,
    "Flow Matching for Generative Modeling"), at random noise levels.

    Args:
        predict: as `velocity_loss` has it; timesteps are 0 .. 1000, the velocity is from picture to noise.
        latents: (B, C, H, W) without noise.
        others: as `velocity_loss` has them. A guided drawing strays to colours beside those of its prompt,
            and who has seen others on the way brings it back.
        step: seeds levels, mixtures and noise.
        shift: of the levels towards noise, as when drawing (Esser et al. 2024, equation 23).
        guidance: as `velocity_loss` has it.
    """
    generator = torch.Generator().manual_seed(step)
    levels, noise = _drawn(latents, generator)
    levels = shift * levels / (1 + (shift - 1) * levels)
    seen = _mixed(latents, others, levels / (1 - levels), generator)
    level = levels.reshape(-1, 1, 1, 1).to(latents)
    noisy = (1 - level) * seen + level * noise
    wanted, free = ((noisy - each) / level for each in (latents, seen))
    guided = partial(gently_guided_error, wanted=wanted, guidance=guidance, free=free) if guidance else None
    return _error(predict, noisy, 1000 * levels.to(latents.device), wanted, guided)


def _drawn(latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times 0 .. 1, one in each of equal parts (less noise in the loss than free draws), and noise."""
    count = len(latents)
    times = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return times, torch.randn(latents.shape, generator=generator).to(latents)


def _error(
    predict: Predict, noisy: Tensor, times: Tensor, wanted: Tensor, guided: Callable[..., Tensor] | None
) -> Tensor:
    """Mean squared, of answers to prompts, or what ``guided`` makes of those and of answers to none."""
    asked = 2 if guided else 1
    # Convolutions and products of matrices in half the bytes, a third faster on CPUs that can.
    with torch.autocast(noisy.device.type, torch.bfloat16):
        predicted = predict(noisy.repeat(asked, 1, 1, 1), times.repeat(asked)).float()
    return guided(*predicted.chunk(2)) if guided else mse_loss(predicted, wanted)


def guided_error(
    prompted: Tensor, other: Tensor, wanted: Tensor, guidance: float, free: Tensor | None = None
) -> Tensor:
    """Mean squared, of what guidance makes of answers to prompts and to none, and of those to none.

    Args:
        free: what is wanted of answers to no prompt, where it is not the same.
    """
    led = other + guidance * (prompted - other)
    return mse_loss(led, wanted) + FREE * mse_loss(other, wanted if free is None else free)


def gently_guided_error(
    prompted: Tensor, other: Tensor, wanted: Tensor, guidance: float, free: Tensor | None = None
) -> Tensor:
    """As `guided_error`, but that only answers to prompts learn of what guidance makes of them, and no more
    than of any answer: else what prompts change in deep noise drowned, in a transformer, what is to be
    learned where noise is weak."""
    known = other.detach()
    led = known + guidance * (prompted - known)
    return mse_loss(led, wanted) / guidance + FREE_FLOW * mse_loss(other, wanted if free is None else free)
