"""The stochastic samplers of sd3-med-pose on a flow whose target distribution is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipelines.schedulers.flow import stochastic
from pipelines.schedulers.flow.algorithms import Algorithm
from pipelines.schedulers.flow.sampler import ALGORITHMS, sampler_on
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES, sigmas
from tests.numerics.gaussian_flow import (
    COVARIANCE,
    MEAN,
    destination,
    distribution,
    drawn,
    even,
    follow,
    noise_of,
    order,
    smooth,
)

CPU = torch.device("cpu")
STOCHASTIC = {
    "euler_ancestral": 1,
    "euler_ancestral_pp": 1,
    "ddpm": 1,
    "dpm_2_ancestral": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_sde": 2,
}


@pytest.mark.parametrize(("name", "theory"), STOCHASTIC.items())
def test_a_stochastic_sampler_converges_to_the_covariance_of_the_target_with_its_order(
    name: str, theory: int
):
    def error(steps: int) -> float:
        mean, covariance = distribution(ALGORITHMS[name], smooth(steps))
        # The picture expected on the way is a martingale: the mean is exact with any number of steps.
        torch.testing.assert_close(mean, MEAN)
        return float((covariance - COVARIANCE).abs().max())

    assert order(error, 64, 256) == pytest.approx(theory, abs=0.3)
    assert error(256) < 0.02


def test_the_noise_of_a_whole_step_of_dpmpp_sde_goes_on_from_that_of_its_half():
    """Where the picture never changes, the step is that of two halves."""
    places: dict[float, float] = {}

    def network(latents: Tensor, level: float) -> Tensor:
        places[level] = float(latents)
        return (latents - 0.7) / level

    def run(algorithm: Algorithm, levels: list[float]) -> dict[float, float]:
        places.clear()
        draws = iter(torch.tensor([0.4, -1.3, 0.2], dtype=torch.float64))
        follow(algorithm, torch.tensor(1.1, dtype=torch.float64), levels, lambda: next(draws), network)
        return dict(places)

    whole = run(stochastic.dpmpp_sde, [0.9, 0.3, 0.0])
    middle = list(whole)[1]
    assert run(stochastic.ddpm, [0.9, middle, 0.3, 0.0]) == pytest.approx(whole)


def test_dpmpp_3m_sde_comes_closer_to_the_distribution_than_samplers_of_second_order():
    """On levels whose steps in lambda hardly grow, so that it extrapolates curves."""
    levels = sigmas("karras", 32).tolist()
    mean, covariance = distribution(stochastic.dpmpp_3m_sde, levels)
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-4)
    error = (covariance - COVARIANCE).abs().max()
    second = (distribution(stochastic.dpmpp_sde, levels)[1] - COVARIANCE).abs().max()
    assert float(error) < 0.1 * float(second)


@pytest.mark.parametrize("steps", [8, 11, 14, 17, 20])
def test_dpmpp_3m_sde_extrapolates_no_curve_over_the_growing_steps_of_a_beta_schedule(steps: int):
    """It would leave twice as much noise."""
    _, covariance = distribution(stochastic.dpmpp_3m_sde, sigmas("beta", steps).tolist())
    assert float(torch.linalg.eigvalsh(covariance - COVARIANCE).max()) < 0.16


def test_dpmpp_3m_sde_follows_a_changing_picture_with_order_three():
    """Without its noise, on levels even in lambda, for a picture that depends on the level alone."""

    def picture(lambda_: float) -> float:
        return math.cos(lambda_)

    def error(steps: int) -> float:
        lambdas = [-4 + 8 * index / steps for index in range(steps + 1)]
        levels = [1 / (1 + math.exp(value)) for value in lambdas]
        places: list[float] = []

        def network(latents: Tensor, level: float) -> Tensor:
            places.append(float(latents))
            return (latents - picture(math.log((1 - level) / level))) / level

        silence = torch.zeros((), dtype=torch.float64)
        follow(stochastic.dpmpp_3m_sde, silence, [*levels, 0.0], lambda: silence, network)

        # x / alpha at the end: the integral of 2 exp(-2 (4 - u)) cos u over -4..4.
        def antiderivative(u: float) -> float:
            return 2 / 5 * math.exp(-2 * (4 - u)) * (2 * math.cos(u) + math.sin(u))

        return abs(places[-1] / (1 - levels[-1]) - antiderivative(4) + antiderivative(-4))

    assert order(error, 64, 256) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
@pytest.mark.parametrize("name", [*STOCHASTIC, "dpmpp_3m_sde"])
def test_the_twenty_steps_of_every_schedule_keep_the_distribution_nearly(name: str, schedule: str):
    mean, covariance = distribution(ALGORITHMS[name], sigmas(schedule, 20).tolist())
    # ddim_uniform starts a little below level 1, with noise alone.
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=0.001)
    assert float((covariance - COVARIANCE).abs().max()) < 0.2


@pytest.mark.parametrize("name", [*STOCHASTIC, "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde"])
def test_what_a_stochastic_sampler_draws_has_mean_and_covariance_of_the_target(name: str):
    pictures = drawn(name, smooth(100), noise_of(20_000).float(), seed=3).double()
    torch.testing.assert_close(pictures.mean(0), MEAN, rtol=0, atol=0.015)
    torch.testing.assert_close(pictures.T.cov(), COVARIANCE, rtol=0, atol=0.05)


def test_lcm_draws_the_target_with_a_network_that_predicts_where_the_path_ends():
    """It is meant for such weights: one step is enough, and each further one draws the picture anew."""
    for steps in (1, 2, 8):
        sampler = sampler_on("lcm", torch.tensor(even(steps)), CPU)
        latents, generator = noise_of(40_000).float(), torch.Generator().manual_seed(2)
        while not sampler.done:
            level = float(sampler.timestep) / 1000
            prediction = (latents - destination(latents, level).float()) / level
            latents = sampler.step(prediction, latents, generator)
        torch.testing.assert_close(latents.double().mean(0), MEAN, rtol=0, atol=0.012)
        torch.testing.assert_close(latents.double().T.cov(), COVARIANCE, rtol=0, atol=0.025)
