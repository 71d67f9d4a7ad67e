"""Deterministic noise schedulers converge to the exact picture, each with its theoretical order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from pipelines.request import SchedulerChoice
from pipelines.schedulers.karras_ve import KarrasVe
from pipelines.schedulers.names import WITH_KARRAS_SIGMAS
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler
from tests.numerics.gaussian_target import (
    CPU,
    MEAN,
    SPREAD,
    STABLE_DIFFUSION,
    GaussianTarget,
    geometric,
    noise,
    sampler,
    seeded,
    seen,
    trajectory,
)

pytestmark = pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")

PREDICTIONS = ("epsilon", "v_prediction")


def error_at_the_last_level(one: DiffusersSampler, config: Mapping[str, Any]) -> float:
    """Largest distance from the exact solution where the last evaluation happens.

    What comes after it is one step to no noise at all, whose length does not depend on the number of steps.
    """
    target = GaussianTarget(config)
    generator = seeded(3)
    begin = one.from_latents(MEAN + SPREAD * noise(generator), noise(generator))
    start = sigma = reached = None
    for latents in trajectory(one, begin, target, generator):
        if one.done:
            break
        reached, sigma = seen(one, latents, target)
        start = start or (reached, sigma)
    assert start is not None
    assert sigma is not None
    return float((reached - target.flow(*start, sigma)).abs().max())


def errors(choice: SchedulerChoice, config: Mapping[str, Any], steps: tuple[int, ...]) -> list[float]:
    return [error_at_the_last_level(sampler(choice, config, number), config) for number in steps]


def order(errors: list[float], steps: tuple[int, ...]) -> float:
    """Slope of the error over the length of a step, both as logarithms."""
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


# Each divides the schedule's 960 intervals, so that no time is rounded. Schedulers with "linspace" times
# that include both ends need one more for the same intervals.
LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
LINSPACE = {"timestep_spacing": "linspace"}
TRAILING = {"timestep_spacing": "trailing"}
MANY = 20_001
"""Training times. Karras noise levels lie between two, and some schedulers round to the nearest."""


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize(
    ("name", "options", "spacing", "largest", "steps", "expected"),
    [
        ("DDIMScheduler", {}, LEADING, 10.0, (20, 40, 80), 1),
        ("DDIMInverseScheduler", {}, LEADING, 10.0, (20, 40, 80), 1),
        # Pseudo numerical methods are of second order whatever the order of their coefficients (Liu et al.
        # 2022, theorem 3.2): the transfer is exact for a constant prediction, and they mix those in time.
        ("PNDMScheduler", {}, LEADING, 10.0, (20, 40, 80), 2),
        ("IPNDMScheduler", {}, LEADING, 10.0, (40, 80, 160), 2),
        ("EulerDiscreteScheduler", {}, LINSPACE, 10.0, (21, 41, 81), 1),
        ("HeunDiscreteScheduler", {}, LINSPACE, 10.0, (21, 41, 81), 2),
        ("KDPM2DiscreteScheduler", {}, LINSPACE, 10.0, (21, 41, 81), 2),
        # A multistep method of order four whose first step is Euler's: one error of second order remains.
        ("LMSDiscreteScheduler", {}, LINSPACE, 2.0, (21, 41, 81), 2),
        ("DPMSolverMultistepScheduler", {}, LINSPACE, 10.0, (20, 40, 80), 2),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, LINSPACE, 10.0, (20, 40, 80), 2),
        ("DPMSolverSinglestepScheduler", {}, LINSPACE, 10.0, (20, 40, 80), 2),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver"}, LINSPACE, 10.0, (20, 40, 80), 2),
        ("DEISMultistepScheduler", {}, LINSPACE, 10.0, (20, 40, 80), 2),
        # The corrector lifts the predictor of order two by one (Zhao et al. 2023, theorem 3.1).
        ("UniPCMultistepScheduler", {}, LINSPACE, 10.0, (20, 40, 80), 3),
    ],
)
def test_a_deterministic_scheduler_converges_to_the_exact_picture_with_its_order(
    name: str,
    options: dict[str, Any],
    spacing: dict[str, Any],
    largest: float,
    steps: tuple[int, ...],
    expected: int,
    prediction_type: str,
) -> None:
    times = 960 if spacing is LEADING else 961
    config = {**geometric(largest, 0.05, times), **spacing, "prediction_type": prediction_type}
    found = errors(SchedulerChoice(name=name, **options), config, steps)
    assert order(found, steps) == pytest.approx(expected, abs=0.3), found


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize(
    ("name", "options", "largest", "times", "steps", "expected"),
    [
        ("EulerDiscreteScheduler", {}, 10.0, 961, (20, 40, 80), 1),
        ("HeunDiscreteScheduler", {}, 10.0, 961, (20, 40, 80), 2),
        ("KDPM2DiscreteScheduler", {}, 10.0, 961, (20, 40, 80), 2),
        ("LMSDiscreteScheduler", {}, 2.0, 961, (20, 40, 80), 2),
        ("DPMSolverMultistepScheduler", {}, 10.0, MANY, (20, 40, 80), 2),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, 10.0, MANY, (20, 40, 80), 2),
        ("DPMSolverSinglestepScheduler", {}, 10.0, MANY, (20, 40, 80), 2),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver"}, 10.0, MANY, (20, 40, 80), 2),
        ("DEISMultistepScheduler", {}, 10.0, MANY, (20, 40, 80), 2),
        ("UniPCMultistepScheduler", {}, 10.0, MANY, (10, 20, 40), 3),
    ],
)
def test_on_karras_noise_levels_it_converges_with_the_same_order(
    name: str,
    options: dict[str, Any],
    largest: float,
    times: int,
    steps: tuple[int, ...],
    expected: int,
    prediction_type: str,
) -> None:
    config = {**geometric(largest, 0.05, times), **LINSPACE, "prediction_type": prediction_type}
    found = errors(SchedulerChoice(name=name, use_karras_sigmas=True, **options), config, steps)
    assert order(found, steps) == pytest.approx(expected, abs=0.3), found


ROUNDING = WITH_KARRAS_SIGMAS - {"EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"}
"""The schedulers whose times on Karras noise levels diffusers rounds to whole ones."""


@pytest.mark.parametrize("name", sorted(WITH_KARRAS_SIGMAS))
def test_on_karras_noise_levels_a_rounded_time_costs_less_than_a_colour_value(name: str) -> None:
    """diffusers tells some networks the training time nearest to a level: their order ends in that error.

    With Stable Diffusion's thousand times it is far below 1 of 255 of a picture's range (4 of these units).
    """
    choice = SchedulerChoice(name=name, use_karras_sigmas=True)
    scheduler = make_scheduler(choice, STABLE_DIFFUSION)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps[:: scheduler.order]
    assert torch.equal(times, times.round()) == (name in ROUNDING)
    if "Ancestral" not in name and name != "EulerDiscreteScheduler":
        assert errors(choice, STABLE_DIFFUSION, (200,))[0] < 2e-3


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_without_churn_karras_et_al_converge_with_the_order_of_heun(prediction_type: str) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    steps = (20, 40, 80)
    samplers = [DiffusersSampler(KarrasVe(config, churn=0.0), number, CPU) for number in steps]
    found = [error_at_the_last_level(one, config) for one in samplers]
    assert order(found, steps) == pytest.approx(2, abs=0.3), found


def test_diffusers_own_pndm_extrapolates_v_itself_and_loses_an_order() -> None:
    """Why `pipelines.schedulers.pndm` is there."""
    config = {**geometric(10.0, 0.05, 960), **LEADING, "prediction_type": "v_prediction"}
    steps = (20, 40, 80)
    plain = [DiffusersSampler(diffusers.PNDMScheduler.from_config(config), number, CPU) for number in steps]
    shipped = [error_at_the_last_level(one, config) for one in plain]
    assert order(shipped, steps) == pytest.approx(1, abs=0.3), shipped
    assert errors(SchedulerChoice(name="PNDMScheduler"), config, steps)[2] < shipped[2] / 50


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_pndm_keeps_its_order_with_runge_kutta_steps_at_the_start(prediction_type: str) -> None:
    config = {**geometric(10.0, 0.05, 960), **LEADING, "prediction_type": prediction_type}
    steps = (20, 40, 80)
    found = errors(SchedulerChoice(name="PNDMScheduler"), {**config, "skip_prk_steps": False}, steps)
    assert order(found, steps) == pytest.approx(2, abs=0.3), found


@pytest.mark.parametrize("spacing", [LINSPACE, TRAILING], ids=lambda spacing: spacing["timestep_spacing"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
def test_ddim_and_pndm_converge_only_where_their_steps_are_whole_parts_of_the_training(
    name: str, spacing: dict[str, Any]
) -> None:
    """diffusers' classes step down by training times // steps, and are told the next time by the spacing.

    "leading" is spaced just so. "trailing" is if the steps divide the training; "linspace" is nearly then,
    off by an error of first order, and both drift away from it otherwise. Another length of the step would be
    right and no longer diffusers' picture.
    """
    config = {**geometric(10.0, 0.05, 960), **spacing}
    choice = SchedulerChoice(name=name)
    dividing = errors(choice, config, steps := (20, 40, 80))
    kept = 2 if name == "PNDMScheduler" and spacing is TRAILING else 1
    assert order(dividing, steps) == pytest.approx(kept, abs=0.3), dividing
    assert errors(choice, config, (170,))[0] > 2 * dividing[2]


@pytest.mark.parametrize("spacing", [LINSPACE, TRAILING], ids=lambda spacing: spacing["timestep_spacing"])
def test_ipndm_converges_whatever_the_spacing(spacing: dict[str, Any]) -> None:
    config = {**geometric(10.0, 0.05, 960), **spacing}
    found = errors(SchedulerChoice(name="IPNDMScheduler"), config, steps := (21, 43, 87))
    assert order(found, steps) == pytest.approx(2, abs=0.3), found
