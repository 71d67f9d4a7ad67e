"""A flow towards a correlated Gaussian, where network, path and distribution are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipelines.schedulers.flow.algorithms import Algorithm, Noise, Prediction
from pipelines.schedulers.flow.sampler import sampler_on

MEAN = torch.tensor([0.5, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
_VALUES, _VECTORS = torch.linalg.eigh(COVARIANCE)


def _of_covariance(function: Callable[[Tensor], Tensor]) -> Tensor:
    return _VECTORS @ torch.diag(function(_VALUES)) @ _VECTORS.T


def velocity(latents: Tensor, level: float) -> Tensor:
    """Expected noise minus expected picture, given latents (..., 2) at a level."""
    offset = latents.double() - (1 - level) * MEAN
    slope = _of_covariance(
        lambda values: (level - (1 - level) * values) / ((1 - level) ** 2 * values + level**2)
    )
    return (offset @ slope - MEAN).to(latents.dtype)


def destination(latents: Tensor, level: float) -> Tensor:
    """Where the flow leads latents (..., 2) that are at a level."""
    offset = latents.double() - (1 - level) * MEAN
    stretch = _of_covariance(lambda values: (values / ((1 - level) ** 2 * values + level**2)).sqrt())
    return MEAN + offset @ stretch


def even(steps: int) -> list[float]:
    return [1 - index / steps for index in range(steps)] + [0.0]


def smooth(steps: int) -> list[float]:
    """Levels that begin and end with steps of the square of the average one.

    A multistep solver starts with a step of order 1; here that is too short to hide the order of the others.
    """
    return [(1 + math.cos(math.pi * index / steps)) / 2 for index in range(steps)] + [0.0]


def follow(
    algorithm: Algorithm,
    latents: Tensor,
    levels: Sequence[float],
    noise: Noise,
    network: Callable[[Tensor, float], Tensor] = velocity,
) -> Tensor:
    """Run an algorithm to its end."""
    running = algorithm(latents, levels, noise)
    asked = next(running)
    try:
        while True:
            predicted = network(*asked)
            asked = running.send(Prediction(predicted, predicted))
    except StopIteration as end:
        return end.value


def distribution(algorithm: Algorithm, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Exact mean (2,) and covariance (2, 2) of what an algorithm draws from standard normal noise.

    Everything it does with this network is linear in its noise. One row of the batch is without any; each
    other row has a single number 1 in one of all the draws, the first latents being one of them.
    """
    draws = 1

    def counting() -> Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros(1, 2, dtype=torch.float64)

    follow(algorithm, torch.zeros(1, 2, dtype=torch.float64), levels, counting)
    units = iter(torch.eye(2 * draws, dtype=torch.float64).split(2))

    def unit() -> Tensor:
        return torch.cat([torch.zeros(1, 2, dtype=torch.float64), next(units).T])

    mean, *responses = follow(algorithm, unit(), levels, unit)
    spread = torch.stack(responses) - mean
    return mean, spread.T @ spread


def noise_of(rows: int, seed: int = 0) -> Tensor:
    return torch.randn((rows, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(name: str, levels: Sequence[float] | Tensor, latents: Tensor, seed: int = 0) -> Tensor:
    """Through the sampler, as the loop steps it."""
    sampler = sampler_on(name, torch.as_tensor(levels, dtype=torch.float32), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    while not sampler.done:
        prediction = velocity(sampler.model_input(latents), float(sampler.timestep) / 1000)
        latents = sampler.step(prediction, latents, generator)
    return latents


def order(error: Callable[[int], float], few: int = 32, many: int = 128) -> float:
    """The measured order of convergence."""
    return math.log(error(few) / error(many)) / math.log(many / few)
