"""The noise that a sampler of flows leaves in a picture when it has too few steps for its method.

As in `pipelines.schedulers.leftover_noise`, the sampler is run without the network.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from pipelines.denoising.sampler import NeedsUnconditional
from pipelines.request import SchedulerChoice
from pipelines.schedulers.flow.sampler import make_sampler
from pipelines.schedulers.flow.sigmas import TRAIN_TIMESTEPS
from pipelines.schedulers.leftover_noise import SHAPE, SPREAD, VISIBLE, sentence, steps_that_help

_CPU = torch.device("cpu")


@lru_cache(maxsize=512)
def leftover_noise_warnings(choice: SchedulerChoice, steps: int) -> tuple[str, ...]:
    """A sentence for the caller where noise is left after so many steps; nothing where the picture is clean.

    Raises:
        InvalidInput: there is no sampler or no schedule of this name.
    """
    if _left(choice, steps) < VISIBLE:
        return ()
    advised = steps_that_help(steps, lambda more: _left(choice, more))
    spacing = f" on the schedule {choice.sigma_schedule}" if choice.sigma_schedule else ""
    return (sentence(f"{choice.name or 'euler'}{spacing}", steps, steps, advised, "another sampler"),)


@torch.no_grad()
def _left(choice: SchedulerChoice, steps: int) -> float:
    """The standard deviation of what a sampler leaves beside a picture of zeros."""
    sampler = make_sampler(choice, steps, _CPU)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    while not sampler.done:
        level = float(sampler.timestep) / TRAIN_TIMESTEPS
        # The expected noise less the expected picture, of pictures that hardly differ from zero.
        slope = (level - (1 - level) * SPREAD**2) / ((1 - level) ** 2 * SPREAD**2 + level**2)
        velocity = slope * sampler.model_input(latents)
        if isinstance(sampler, NeedsUnconditional):
            sampler.take_unconditional(velocity)
        latents = sampler.step(velocity, latents, generator)
    return float(latents.std())
