"""The losses of denoisers, which learn the velocity between a picture and noise, on one of two ways.

Guidance multiplies the change that a prompt makes by ``guidance``. In a world where a prompt names nearly
everything that is far too much: networks that answer a prompt exactly draw it in colours which no picture
has, and find ragged shapes in them. So the guided answer is to be exact, at the guidance with which
pictures are drawn; a network's answer to a prompt is then a small step away from its answer to none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipelines.demo.checkpoints.schedule import SCHEDULE


def signal_levels() -> Tensor:
    """The (1000,) products of 1 - beta, from clean to noisy."""
    ends = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    betas = torch.linspace(*ends, SCHEDULE["num_train_timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


DRAWN_OVER = (0.53, 12.5)
"""The noises, in parts of the signal, between which drawing over a picture begins: less noise changes
nothing, and more hides the old colours anyway."""
CLEAR, CLEARLY = 0.6, 0.75
"""The part of the schedule up to which noise shows where shapes end, and the share of times in that part;
later times only tell of large areas, which is learned soon."""
FREE = 0.1
"""The weight of the answer to no prompt, beside the guided answer."""
FREE_FLOW = 0.5
"""The weight of the answer to no prompt of flows, beside guided answers that count less."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""A function (noisy latents, timesteps) -> velocity."""


def velocity_loss(
    predict: Predict, latents: Tensor, others: Tensor, step: int, *, guidance: float | None = None
) -> Tensor:
    """The mean squared error of the velocity (Salimans and Ho 2022, appendix D) at random times.

    Args:
        predict: gets the same noise twice where there is guidance: the first half of a batch is to be drawn
            by prompts, the second by none.
        latents: (B, C, H, W) latents of the pictures to be drawn, without noise.
        others: (B, C, H, W) latents of the same compositions in other colours, or ``latents`` again. The
            network sees a random mixture of both, so that a picture which is drawn over follows the
            prompt's colours while the noise still shows the old ones.
        step: seeds times, mixtures and noise.
        guidance: the guidance whose answer is to be exact.
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
    """The pictures (B, C, H, W) as they are seen at the times (B,) of the schedule."""
    level = _level(times, latents)
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def _level(times: Tensor, latents: Tensor) -> Tensor:
    """The level (B, 1, 1, 1) of the signal at each time."""
    return signal_levels()[times].reshape(-1, 1, 1, 1).to(latents)


def _mixed(latents: Tensor, others: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (B, C, H, W) that still show other colours under so much noise (B,) while a picture is drawn
    over, at random up to all of them where that begins.

    On the straight way to the new colours the old ones fade as the noise does, in parts of the signal; a
    network that no longer saw them at some point would stop half-way.
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
    """The mean squared error of the velocity on the straight way from a picture to noise (Lipman et al.
    2023, "Flow Matching for Generative Modeling"), at random noise levels.

    Args:
        predict: the same function as that of `velocity_loss`; timesteps are 0 .. 1000, and the velocity
            leads from picture to noise.
        latents: (B, C, H, W) latents without noise.
        others: the same as in `velocity_loss`. A guided drawing strays to colours beside those of its
            prompt, and a network that has seen others on the way brings it back.
        step: seeds levels, mixtures and noise.
        shift: the shift of the levels towards noise, as when drawing (Esser et al. 2024, equation 23).
        guidance: the guidance whose answer is to be exact.
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
    """Random times 0 .. 1, one in each of equal parts, which make the loss less noisy than free draws, and
    noise."""
    count = len(latents)
    times = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return times, torch.randn(latents.shape, generator=generator).to(latents)


def _error(
    predict: Predict, noisy: Tensor, times: Tensor, wanted: Tensor, guided: Callable[..., Tensor] | None
) -> Tensor:
    """The mean squared error of answers to prompts, or the one that ``guided`` finds in all answers."""
    asked = 2 if guided else 1
    # Convolutions and products of matrices in half the bytes, a third faster on CPUs that can.
    with torch.autocast(noisy.device.type, torch.bfloat16):
        predicted = predict(noisy.repeat(asked, 1, 1, 1), times.repeat(asked)).float()
    return guided(*predicted.chunk(2)) if guided else mse_loss(predicted, wanted)


def guided_error(
    prompted: Tensor, other: Tensor, wanted: Tensor, guidance: float, free: Tensor | None = None
) -> Tensor:
    """The mean squared error of the guided answers, and of the answers to no prompt.

    Args:
        free: the wanted answers to no prompt, where they differ from those to prompts.
    """
    led = other + guidance * (prompted - other)
    return mse_loss(led, wanted) + FREE * mse_loss(other, wanted if free is None else free)


def gently_guided_error(
    prompted: Tensor, other: Tensor, wanted: Tensor, guidance: float, free: Tensor | None = None
) -> Tensor:
    """The mean squared errors of `guided_error`, of which only answers to prompts learn, and no more than
    from any other answer: else the change that a prompt makes in deep noise drowned, in a transformer, the
    lessons of weak noise.
    """
    known = other.detach()
    led = known + guidance * (prompted - known)
    return mse_loss(led, wanted) / guidance + FREE_FLOW * mse_loss(other, wanted if free is None else free)
