"""Samplers for flow matching (SD3) by their documented names, on the noise levels of a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from pipelines.denoising.sampler import Sampler
from pipelines.errors import InvalidInput
from pipelines.request import SchedulerChoice
from pipelines.schedulers.flow import algorithms, dpm_solver, stochastic
from pipelines.schedulers.flow.algorithms import Algorithm, Evaluations, Prediction
from pipelines.schedulers.flow.diffusers_schedulers import DIFFUSERS_SAMPLERS, FlowSampler, noise_scheduler
from pipelines.schedulers.flow.sigmas import TRAIN_TIMESTEPS, sigmas
from pipelines.schedulers.variance_exploding import at_least_float32

ALGORITHMS: dict[str, Algorithm] = {
    "euler_pp": algorithms.euler_pp,
    "euler_ancestral": stochastic.euler_ancestral,
    "euler_ancestral_pp": stochastic.euler_ancestral_pp,
    "heunpp2": algorithms.heunpp2,
    "dpm_2": algorithms.dpm_2,
    "dpm_2_ancestral": stochastic.dpm_2_ancestral,
    "lms": algorithms.lms,
    "dpm_fast": dpm_solver.dpm_fast,
    "dpm_adaptive": dpm_solver.dpm_adaptive,
    "dpmpp_2s_ancestral": stochastic.dpmpp_2s_ancestral,
    "dpmpp_sde": stochastic.dpmpp_sde,
    "dpmpp_sde_gpu": stochastic.dpmpp_sde,
    "dpmpp_3m_sde": stochastic.dpmpp_3m_sde,
    "dpmpp_3m_sde_gpu": stochastic.dpmpp_3m_sde,
    "ddpm": stochastic.ddpm,
    "ipndm": algorithms.ipndm,
    "ipndm_v": algorithms.ipndm_v,
    "ddim": algorithms.ddim,
}
"""The samplers that diffusers does not have for flows.

``_gpu`` in a name says where ComfyUI draws the noise; here it always comes from the sample's own generator.
"""

SAMPLERS = (*DIFFUSERS_SAMPLERS, *ALGORITHMS)
_NEED_UNGUIDED = ("euler_pp", "euler_ancestral_pp")


def needs_unguided(name: str) -> bool:
    """Whether the sampler of that name uses the prediction without the prompt even at guidance scale 1."""
    return name in _NEED_UNGUIDED


class AlgorithmSampler(Sampler):
    """An `Algorithm` in the middle of one sample; predictions are SD3's velocities.

    The latents that the algorithm works on stay in float32 at least; the network sees them in its own type.
    """

    def __init__(self, algorithm: Algorithm, levels: Sequence[float], device: torch.device) -> None:
        self._algorithm = algorithm
        self._levels = tuple(levels)
        self._device = device
        self._level = self._levels[0]
        self._running: Evaluations | None = None
        self._unguided: Tensor | None = None
        self._position = 0
        self._done = False

    @property
    def total(self) -> int:
        """The number of evaluations; a guess for dpm_adaptive, which finds its steps on the way."""
        if self._done:
            return self._position
        if self._algorithm is not dpm_solver.dpm_adaptive:
            return _evaluations(self._algorithm, self._levels)
        first, last = self._levels[0], self._levels[-2]
        left = math.log(self._level / last) / math.log(first / last) if last < first else 0.0
        return self._position + max(1, round(left * (len(self._levels) - 1)))

    @property
    def position(self) -> int:
        return self._position

    @property
    def done(self) -> bool:
        return self._done

    @property
    def timestep(self) -> Tensor:
        return torch.full((), self._level * TRAIN_TIMESTEPS, device=self._device)

    def model_input(self, latents: Tensor) -> Tensor:
        return latents

    def take_unconditional(self, prediction: Tensor) -> None:
        self._unguided = prediction

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        if self._running is None:
            self._running = self._start(latents, generator)
        velocity = at_least_float32(prediction)
        unguided = velocity if self._unguided is None else at_least_float32(self._unguided)
        self._unguided = None
        try:
            following, self._level = self._running.send(Prediction(velocity, unguided))
        except StopIteration as end:
            following, self._done = end.value, True
        self._position += 1
        return following.to(latents.dtype)

    def _start(self, latents: Tensor, generator: torch.Generator) -> Evaluations:
        start = at_least_float32(latents)

        def noise() -> Tensor:
            return torch.randn(start.shape, generator=generator, dtype=start.dtype).to(start.device)

        running = self._algorithm(start, self._levels, noise)
        next(running)
        return running


@lru_cache(maxsize=256)
def _evaluations(algorithm: Algorithm, levels: tuple[float, ...]) -> int:
    """The number of evaluations of an algorithm that does not look at its predictions."""
    nothing = torch.zeros(())
    running = algorithm(nothing, levels, lambda: nothing)
    next(running)
    count = 1
    try:
        while True:
            running.send(Prediction(nothing, nothing))
            count += 1
    except StopIteration:
        return count


def make_sampler(choice: SchedulerChoice, steps: int, device: torch.device) -> Sampler:
    """The sampler that a request asks for; where its fields are empty, the checkpoint's own: euler, normal.

    Raises:
        InvalidInput: there is no sampler or no schedule of this name.
    """
    name = choice.name or "euler"
    if name not in SAMPLERS:
        raise InvalidInput("sampler", f"{name} is not one of {', '.join(SAMPLERS)}")
    return sampler_on(name, sigmas(choice.sigma_schedule or "normal", steps), device)


def sampler_on(name: str, levels: Tensor, device: torch.device) -> Sampler:
    """One of `SAMPLERS` on any levels that fall strictly to 0."""
    if name in DIFFUSERS_SAMPLERS:
        return FlowSampler(noise_scheduler(name, levels), device)
    return AlgorithmSampler(ALGORITHMS[name], levels.tolist(), device)
