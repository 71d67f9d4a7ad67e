"""The deterministic samplers of sd3-med-pose on a flow whose exact path is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pipelines.schedulers.flow import dpm_solver
from pipelines.schedulers.flow.algorithms import Prediction, ddim, euler_pp, ipndm, ipndm_v, lms
from pipelines.schedulers.flow.dpm_solver import dpm_adaptive, orders
from pipelines.schedulers.flow.sampler import ALGORITHMS, AlgorithmSampler, sampler_on
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES, sigmas
from tests.numerics.gaussian_flow import (
    destination,
    drawn,
    even,
    follow,
    noise_of,
    order,
    smooth,
    velocity,
)

CPU = torch.device("cpu")

ORDERS = {
    "euler": 1,
    "euler_pp": 1,  # without guidance, which the exact flow has none of
    "ddim": 1,
    "heunpp2": 1,
    "heun": 2,
    "dpm_2": 2,
    "dpmpp_2m": 2,
    "deis": 2,
    "ipndm": 2,  # its weights are those of even levels, and these are not
    "uni_pc": 3,  # predictor of order 2, corrected
    "uni_pc_bh2": 3,
    "dpm_fast": 3,
    "lms": 4,
    "ipndm_v": 4,
}


def silent() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


@pytest.mark.parametrize(("name", "theory"), ORDERS.items())
def test_a_deterministic_sampler_converges_to_the_exact_path_with_its_order(name: str, theory: int):
    noise = noise_of(50)
    # diffusers' schedulers count in float32.
    start = noise if name in ALGORITHMS else noise.float()

    def error(steps: int) -> float:
        if name in ALGORITHMS:
            end = follow(ALGORITHMS[name], start, smooth(steps), silent)
        else:
            end = drawn(name, smooth(steps), start)
        return float((end - destination(noise, 1.0)).square().mean().sqrt())

    assert order(error) == pytest.approx(theory, abs=0.3)
    assert error(128) < 0.02


def test_ipndm_has_order_four_on_even_levels_once_it_has_four_slopes():
    """The slope is flat at both ends, where the first steps, and the last one, are of lower order."""

    def error(steps: int) -> float:
        def network(latents: Tensor, level: float) -> Tensor:
            return torch.full_like(latents, (level * (1 - level)) ** 4)

        end = follow(ipndm, torch.zeros((), dtype=torch.float64), even(steps), silent, network)
        return abs(float(end) + math.factorial(4) ** 2 / math.factorial(9))

    assert order(error) == pytest.approx(4, abs=0.3)


def test_lms_integrates_cubic_slopes_exactly_once_it_has_four_of_them():
    levels = [0.9, 0.7, 0.65, 0.4, 0.3, 0.05, 0.0]
    before: list[Tensor] = []

    def network(latents: Tensor, level: float) -> Tensor:
        before.append(latents)
        return torch.full_like(latents, 4 * level**3 - level)

    end = follow(lms, torch.zeros((), dtype=torch.float64), levels, silent, network)
    # From the fourth level on: the integral of the slope from 0.4 down to 0.
    assert float(end - before[3]) == pytest.approx(-(0.4**4 - 0.4**2 / 2), abs=1e-14)


def test_ipndm_v_takes_the_steps_of_lms_and_ends_in_the_predicted_picture():
    seen: dict[str, list[Tensor]] = {"lms": [], "ipndm_v": []}

    def network(latents: Tensor, level: float) -> Tensor:
        record.append(latents)
        return velocity(latents, level)

    record = seen["lms"]
    by_lms = follow(lms, noise_of(3), sigmas("karras", 9).tolist(), silent, network)
    record = seen["ipndm_v"]
    end = follow(ipndm_v, noise_of(3), sigmas("karras", 9).tolist(), silent, network)
    assert all(torch.equal(*both) for both in zip(*seen.values(), strict=True))
    last = float(sigmas("karras", 9)[-2])
    torch.testing.assert_close(end, record[-1] - last * velocity(record[-1], last))
    assert not torch.allclose(end, by_lms, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_ddim_is_the_euler_step_of_the_flow(schedule: str):
    levels = sigmas(schedule, 9)
    noise = noise_of(3).float()
    torch.testing.assert_close(drawn("ddim", levels, noise), drawn("euler", levels, noise))
    torch.testing.assert_close(
        follow(ddim, noise_of(3), levels.tolist(), silent),
        drawn("euler", levels, noise).double(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_heunpp2_weighs_three_slopes_by_their_levels():
    """One step from 0.8 to 0.6, then 0.4, written out."""

    def network(latents: Tensor, level: float) -> Tensor:
        return 2 * latents + level

    asked: list[tuple[float, float]] = []

    def watched(latents: Tensor, level: float) -> Tensor:
        asked.append((float(latents), level))
        return network(latents, level)

    follow(
        ALGORITHMS["heunpp2"],
        torch.tensor(1.0, dtype=torch.float64),
        [0.8, 0.6, 0.4, 0.2, 0.0],
        silent,
        watched,
    )
    first = 2.8
    second_at = 1 - 0.2 * first
    second = 2 * second_at + 0.6
    third_at = second_at - 0.2 * second
    third = 2 * third_at + 0.4
    slope = (1 - 0.25 - 1 / 6) * first + 0.25 * second + third / 6
    assert [place for place, _ in asked[:4]] == pytest.approx([1, second_at, third_at, 1 - 0.2 * slope])
    # Two slopes in the last step but one, and one in the last.
    assert [level for _, level in asked] == pytest.approx([0.8, 0.6, 0.4, 0.6, 0.4, 0.2, 0.4, 0.2, 0.2])


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [(0, []), (1, [1]), (2, [2]), (3, [2, 1]), (5, [3, 2]), (6, [3, 2, 1]), (10, [3, 3, 3, 1])],
)
def test_dpm_fast_shares_its_evaluations_as_the_paper_says(evaluations: int, expected: list[int]):
    assert orders(evaluations) == expected


def test_dpm_adaptive_comes_closer_with_a_tighter_tolerance(monkeypatch: pytest.MonkeyPatch):
    noise = noise_of(50)
    errors: list[float] = []
    counts: list[int] = []
    for part in (1, 0.1, 0.01, 0.001):
        monkeypatch.setattr(dpm_solver, "RELATIVE_TOLERANCE", 0.05 * part)
        monkeypatch.setattr(dpm_solver, "ABSOLUTE_TOLERANCE", 0.0078 * part)
        monkeypatch.setattr(dpm_solver, "SMALLEST_STEP", 1e-6)
        asked: list[float] = []

        def network(latents: Tensor, level: float, asked: list[float] = asked) -> Tensor:
            asked.append(level)
            return velocity(latents, level)

        end = follow(dpm_adaptive, noise, [1.0, 1e-4, 0.0], silent, network)
        errors.append(float((end - destination(noise, 1.0)).abs().max()))
        counts.append(len(asked))
    assert errors[0] < 0.01
    assert errors[3] < errors[2] < errors[1] < errors[0]
    assert counts[0] < counts[1] < counts[2] < counts[3]


def test_dpm_adaptive_tries_again_where_a_step_was_too_long():
    """Where the slope turns sharply, it goes back to higher levels."""
    asked: list[float] = []

    def network(latents: Tensor, level: float) -> Tensor:
        asked.append(level)
        return torch.tanh(torch.as_tensor((level - 0.3) * 40.0)).expand(latents.shape)

    end = follow(dpm_adaptive, torch.zeros(4, dtype=torch.float64), [1.0, 0.01, 0.0], silent, network)
    assert any(later > earlier for earlier, later in pairwise(asked))
    assert float(end[0]) == pytest.approx(-(math.log(math.cosh(28)) - math.log(math.cosh(12))) / 40, abs=0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_dpm_adaptive_ends_even_if_the_network_answers_nonsense(value: float):
    def network(latents: Tensor, level: float) -> Tensor:
        return torch.full_like(latents, value)

    assert not follow(dpm_adaptive, torch.zeros(3), [1.0, 0.003, 0.0], silent, network).isfinite().any()


@pytest.mark.parametrize("ancestral", [False, True])
def test_cfg_plus_plus_noises_the_guided_picture_with_the_unguided_noise(ancestral: bool):
    """One step from 0.8 to 0.5 by hand."""
    name = "euler_ancestral_pp" if ancestral else "euler_pp"
    sampler = sampler_on(name, torch.tensor([0.8, 0.5, 0.0]), CPU)
    assert isinstance(sampler, AlgorithmSampler)
    latents = torch.tensor([1.0, 2.0])
    guided, unguided = torch.tensor([0.5, -0.5]), torch.tensor([0.1, 0.3])
    sampler.take_unconditional(unguided)
    stepped = sampler.step(guided, latents, torch.Generator().manual_seed(1))
    picture, noise = latents - 0.8 * guided, latents + 0.2 * unguided
    if not ancestral:
        torch.testing.assert_close(stepped, 0.5 * picture + 0.5 * noise)
        return
    below = 0.5**2 / 0.8
    fresh = torch.randn(2, generator=torch.Generator().manual_seed(1))
    scale = 0.5 / (1 - below)
    expected = 0.5 * picture + scale * below * noise + math.sqrt(0.25 - (scale * below) ** 2) * fresh
    torch.testing.assert_close(stepped, expected)


def test_an_unguided_prediction_counts_for_one_step_only():
    sampler = sampler_on("euler_pp", torch.tensor([0.8, 0.5, 0.2, 0.0]), CPU)
    assert isinstance(sampler, AlgorithmSampler)
    sampler.take_unconditional(torch.ones(2))
    middle = sampler.step(torch.zeros(2), torch.zeros(2), torch.Generator())
    assert not torch.equal(middle, torch.zeros(2))
    torch.testing.assert_close(sampler.step(torch.zeros(2), middle, torch.Generator()), middle)


def test_cfg_plus_plus_is_euler_where_nothing_guides():
    torch.testing.assert_close(
        follow(euler_pp, noise_of(3), even(7), silent), follow(ddim, noise_of(3), even(7), silent)
    )


def test_every_algorithm_asks_first_for_what_it_was_given():
    for algorithm in ALGORITHMS.values():
        latents = torch.ones(2)
        running = algorithm(latents, [0.9, 0.5, 0.0], lambda: torch.zeros(2))
        asked, level = next(running)
        assert asked is latents
        assert level == pytest.approx(0.9, abs=1e-12)
        running.send(Prediction(latents, latents))
