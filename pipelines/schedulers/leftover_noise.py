"""The noise that a noise scheduler leaves in a picture when it has too few steps for its method.

It is found out without the checkpoint's network: on pictures that hardly differ the best prediction is known
in closed form, and whatever a scheduler leaves beside them is noise of its own making.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
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

SHAPE = (1, 4, 8, 8)
"""The shape of the latents that stand for pictures."""

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
        advised = steps_that_help(
            steps, lambda more: _left(scheduler, levels, more, more - max(1, int(more * part)))
        )
        name = choice.name or self._config["_class_name"]
        if choice.algorithm_type is None or name not in ALGORITHM_TYPES:
            return (sentence(name, steps, drawn, advised, "another scheduler"),)
        algorithm = f"{name} with the algorithm_type {choice.algorithm_type}"
        return (sentence(algorithm, steps, drawn, advised, "another algorithm_type"),)


def steps_that_help(steps: int, left: Callable[[int], float]) -> int | None:
    """The least number of more steps that leave no visible noise; None: even `MOST_STEPS` do.

    Args:
        left: the noise that is left after a number of steps.
    """
    return next((more for more in range(steps + 1, MOST_STEPS + 1) if left(more) < VISIBLE), None)


def sentence(what: str, steps: int, drawn: int, advised: int | None, instead: str) -> str:
    """The warning of noise that is left.

    Args:
        what: what leaves it.
        drawn: how many of the steps are drawn.
        advised: the steps that would help; None: none do.
        instead: what to ask for where steps do not help.
    """
    counted = f"{steps} {'step' if steps == 1 else 'steps'}"
    of_all = counted if drawn == steps else f"{drawn} of {counted}"
    more = "" if advised is None else f"{advised} steps or more, or for "
    return f"{what} leaves noise in a picture of {of_all}: ask for {more}{instead}"


def _left(scheduler: Any, levels: NoiseLevels, steps: int, skip: int) -> float:
    """The standard deviation of what a scheduler leaves beside a picture of zeros.

    Args:
        scheduler: it stays as it is.
    """
    sampler = DiffusersSampler(copy.deepcopy(scheduler), steps, _CPU, skip=skip)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
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
