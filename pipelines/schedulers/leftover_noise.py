"""The noise that a noise scheduler leaves in a picture when it has too few steps for its method.

It is found out without the checkpoint's network: on pictures that hardly differ the best prediction is known
in closed form, and whatever a scheduler leaves beside them is noise of its own making.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.lru import LRUCache
from pipelines.request import SchedulerChoice
from pipelines.schedulers.names import ALGORITHM_TYPES
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler
from pipelines.schedulers.variance_exploding import NoiseLevels

VISIBLE = 0.17
"""The standard deviation of leftover noise from which on a caller is told; that of pictures' latents is one.

KarrasVe leaves 0.18 after 4 steps, which is plain to see; what no scheduler can avoid is below 0.06.
"""

SPREAD = 0.05
"""The standard deviation of the pictures that hardly differ."""

MOST_STEPS = 50
"""The most steps that are advised."""

_SHAPE = (1, 4, 8, 8)
_CPU = torch.device("cpu")


class LeftoverNoise:
    """Says which settings of a checkpoint's noise schedulers leave noise in its pictures.

    Args:
        config: configuration of the checkpoint's own noise scheduler.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._known: LRUCache[tuple[SchedulerChoice, int, int], tuple[str, ...]] = LRUCache(512)

    def warnings(self, choice: SchedulerChoice, steps: int, drawn: int) -> tuple[str, ...]:
        """A sentence for the caller where noise is left; nothing where the picture is clean.

        Args:
            steps: the steps of the whole schedule.
            drawn: how many of them are drawn, at its end.
        """
        return self._known.get((choice, steps, drawn), lambda: self._look(choice, steps, drawn))

    @torch.no_grad()
    def _look(self, choice: SchedulerChoice, steps: int, drawn: int) -> tuple[str, ...]:
        scheduler = make_scheduler(choice, self._config)
        levels = NoiseLevels(self._config)
        if _left(scheduler, levels, steps, steps - drawn) < VISIBLE:
            return ()
        part = drawn / steps
        advised = next(
            (
                more
                for more in range(steps + 1, MOST_STEPS + 1)
                if _left(scheduler, levels, more, more - int(more * part)) < VISIBLE
            ),
            None,
        )
        name = choice.name or self._config["_class_name"]
        counted = f"{steps} {'step' if steps == 1 else 'steps'}"
        of_all = counted if drawn == steps else f"{drawn} of {counted}"
        has_algorithm = choice.algorithm_type is not None and name in ALGORITHM_TYPES
        algorithm = f" with the algorithm_type {choice.algorithm_type}" if has_algorithm else ""
        remedy = f"ask for {advised} steps or more, or for another scheduler"
        if advised is None:
            remedy = "ask for another algorithm_type" if algorithm else "ask for another scheduler"
        return (f"{name}{algorithm} leaves noise in a picture of {of_all}: {remedy}",)


def _left(scheduler: Any, levels: NoiseLevels, steps: int, skip: int) -> float:
    """The standard deviation of what a scheduler leaves beside a picture of zeros.

    Args:
        scheduler: it stays as it is.
    """
    sampler = DiffusersSampler(copy.deepcopy(scheduler), steps, _CPU, skip=skip)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_SHAPE, generator=generator, dtype=torch.float64)
    latents = sampler.from_latents(torch.zeros_like(noise), noise) if skip else sampler.from_noise(noise)
    while not sampler.done:
        prediction = _best_prediction(sampler.model_input(latents), levels, float(sampler.timestep))
        latents = sampler.step(prediction, latents, generator)
    return float(latents.std())


def _best_prediction(seen: Tensor, levels: NoiseLevels, time: float) -> Tensor:
    """The right prediction of a network that sees one of the pictures that hardly differ from zero."""
    sigma = levels.sigma_of(time)
    signal = (1 + sigma**2) ** -0.5
    picture = SPREAD**2 / (SPREAD**2 + sigma**2) * seen / signal
    return levels.prediction(picture, (seen / signal - picture) / sigma, sigma)
