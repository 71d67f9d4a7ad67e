"""Sigma schedules against numbers worked out by hand, samplers against a target whose flow is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from pipelines.errors import InvalidInput, UnsupportedParameter
from pipelines.flow_samplers import (
    AVAILABLE_SAMPLERS,
    SIGMA_SCHEDULES,
    UNAVAILABLE_SAMPLERS,
    make_sampler,
    noise_scheduler,
    sigmas,
)
from pipelines.request import SchedulerChoice

CPU = torch.device("cpu")
# fmt: off
DOCUMENTED = [
    "euler", "euler_pp", "euler_ancestral", "euler_ancestral_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm",
    "ipndm", "ipndm_v", "deis", "ddim", "uni_pc", "uni_pc_bh2", "euler_cfg_pp", "euler_ancestral_cfg_pp",
]
# fmt: on


def shifted(time: float) -> float:
    return 3 * time / (1 + 2 * time)


LOWEST = 0.003 / 1.002


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Times 1, 0.5015, 0.003 (the lowest level), each shifted.
        ("normal", [1.0, shifted((1 + LOWEST) / 2), shifted(LOWEST), 0.0]),
        # The same down to the lowest level in four, without it.
        ("sgm_uniform", [1.0, shifted(1 - (1 - LOWEST) / 3), shifted(1 - 2 * (1 - LOWEST) / 3), 0.0]),
        ("karras", [1.0, ((1 + LOWEST ** (1 / 7)) / 2) ** 7, LOWEST, 0.0]),
        ("exponential", [1.0, LOWEST**0.5, LOWEST, 0.0]),
        # Entries 1000, 1000 - 333 and 1000 - 666 of the table.
        ("simple", [1.0, shifted(0.667), shifted(0.334), 0.0]),
        # Entries 2, 2 + 333 and 2 + 666.
        ("ddim_uniform", [shifted(0.668), shifted(0.335), shifted(0.002), 0.0]),
    ],
)
def test_three_steps_of_a_schedule_are_the_levels_worked_out_by_hand(schedule: str, expected: list[float]):
    torch.testing.assert_close(sigmas(schedule, 3), torch.tensor(expected), rtol=1e-6, atol=1e-7)


def test_the_beta_schedule_takes_equal_parts_of_the_beta_distribution():
    """Its density is x^-0.4 (1 - x)^-0.4; with x = sin^2 the integral has no poles."""
    entries = [round(1000 * float(level / (3 - 2 * level))) for level in sigmas("beta", 4)[:-1]]
    angles = torch.linspace(0, torch.pi / 2, 200_001, dtype=torch.float64)
    density = (angles.sin() * angles.cos()) ** 0.2
    shares = [
        float(density[angles.sin() ** 2 <= (entry - 1) / 999].sum() / density.sum()) for entry in entries
    ]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=0.001)


def test_a_ddim_uniform_schedule_has_more_levels_where_steps_do_not_divide_the_table():
    assert [len(sigmas("ddim_uniform", steps)) - 1 for steps in (20, 30, 67)] == [20, 31, 72]


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_levels_fall_strictly_from_at_most_one_to_zero(schedule: str):
    for steps in range(1, 101):
        levels = sigmas(schedule, steps).tolist()
        assert len(levels) == steps + 1 or schedule == "ddim_uniform"
        assert levels[0] <= 1.0
        assert levels[-1] == 0.0
        assert all(higher > lower for higher, lower in pairwise(levels))


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="scheduler: linear is not one of normal, karras"):
        sigmas("linear", 3)


MEAN, DEVIATION = 0.5, 0.3


def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
    """The exact flow towards a Gaussian: expectation of noise minus picture, given the noised picture."""
    sigma = float(timestep) / 1000
    variance = (1 - sigma) ** 2 * DEVIATION**2 + sigma**2
    offset = latents - (1 - sigma) * MEAN
    return sigma / variance * offset - MEAN - (1 - sigma) * DEVIATION**2 / variance * offset


def sample(name: str, schedule: str, steps: int, noise: Tensor) -> Tensor:
    sampler = make_sampler(SchedulerChoice(name=name, sigma_schedule=schedule), steps, CPU)
    generator = torch.Generator("cpu").manual_seed(1)
    latents, evaluations = noise, 0
    while not sampler.done:
        assert sampler.position == evaluations
        prediction = velocity(sampler.model_input(latents), sampler.timestep)
        latents = sampler.step(prediction, latents, generator)
        evaluations += 1
    assert evaluations == sampler.total
    return latents


def error(name: str, schedule: str, steps: int) -> float:
    """Distance from where the exact flow leads this noise; for stochastic samplers from its distribution."""
    noise = torch.randn((1, 4, 32, 32), generator=torch.Generator("cpu").manual_seed(0))
    drawn = sample(name, schedule, steps, noise)
    if name in ("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "lcm"):
        return abs(float(drawn.mean()) - MEAN) + abs(float(drawn.std()) - DEVIATION)
    return float((drawn - (MEAN + DEVIATION * noise)).abs().mean())


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
@pytest.mark.parametrize("name", AVAILABLE_SAMPLERS)
def test_every_sampler_is_finite_on_every_schedule_for_any_number_of_steps(name: str, schedule: str):
    noise = torch.randn((1, 4, 4, 4), generator=torch.Generator("cpu").manual_seed(0))
    for steps in (*range(1, 21), 25, 30, 40, 50, 75, 99, 100):
        assert bool(torch.isfinite(sample(name, schedule, steps, noise)).all()), steps


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
@pytest.mark.parametrize("name", AVAILABLE_SAMPLERS)
def test_every_sampler_comes_closer_to_the_exact_flow_with_more_steps(name: str, schedule: str):
    few, many = error(name, schedule, 2), error(name, schedule, 100)
    assert many < 0.5 * few
    # LCM keeps only what a distilled network predicts at once; its limit on an exact flow is elsewhere.
    assert many < 0.05 or name == "lcm"


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "uni_pc", "uni_pc_bh2", "deis"])
def test_samplers_of_second_order_come_closer_than_euler(name: str):
    assert error(name, "karras", 20) < 0.5 * error("euler", "karras", 20)


def test_the_infinite_first_step_of_uni_pc_is_not_overcorrected():
    assert error("uni_pc", "karras", 5) < 0.1


def test_uni_pc_starts_where_the_half_log_snr_is_finite():
    scheduler = noise_scheduler("uni_pc", "simple", 4)
    scheduler.set_timesteps()
    assert 0.999998 < float(scheduler.sigmas[0]) < 1.0
    assert float(scheduler.timesteps[0]) == 1000.0


def test_heun_evaluates_twice_in_every_step_but_the_last():
    assert make_sampler(SchedulerChoice(name="heun", sigma_schedule="simple"), 10, CPU).total == 19


@pytest.mark.parametrize("name", AVAILABLE_SAMPLERS)
def test_the_network_is_told_a_thousand_times_the_level(name: str):
    sampler = make_sampler(SchedulerChoice(name=name, sigma_schedule="karras"), 4, CPU)
    times: list[float] = []
    latents = torch.zeros(1, 4, 2, 2)
    while not sampler.done:
        assert sampler.timestep.shape == ()
        times.append(float(sampler.timestep))
        latents = sampler.step(latents, latents, torch.Generator("cpu"))
    assert sorted(set(times), reverse=True) == pytest.approx((1000 * sigmas("karras", 4)[:-1]).tolist())


def test_ddim_is_the_euler_step_of_the_flow():
    noise = torch.randn((1, 4, 4, 4), generator=torch.Generator("cpu").manual_seed(0))
    assert torch.equal(sample("ddim", "beta", 9, noise), sample("euler", "beta", 9, noise))


def test_stochastic_samplers_take_their_noise_from_the_given_generator():
    for name in ("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "lcm"):
        drawn: list[Tensor] = []
        for seed in (1, 1, 2):
            torch.manual_seed(len(drawn))
            sampler = make_sampler(SchedulerChoice(name=name, sigma_schedule="simple"), 3, CPU)
            latents = torch.ones(1, 4, 4, 4)
            drawn.append(sampler.step(latents, latents, torch.Generator("cpu").manual_seed(seed)))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


def test_nothing_chosen_is_what_the_checkpoint_itself_would_do():
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    own.set_timesteps(7)
    levels = noise_scheduler("euler", "normal", 7)
    levels.set_timesteps()
    torch.testing.assert_close(levels.sigmas, own.sigmas)
    torch.testing.assert_close(levels.timesteps, own.timesteps)
    assert make_sampler(SchedulerChoice(), 7, CPU).total == 7


def run(scheduler: Any, latents: Tensor) -> Tensor:
    for timestep in scheduler.timesteps:
        latents = scheduler.step(velocity(latents, timestep), timestep, latents, return_dict=False)[0]
    return latents


FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("euler", FlowMatchEulerDiscreteScheduler()),
        ("heun", FlowMatchHeunDiscreteScheduler()),
        ("dpmpp_2m", DPMSolverMultistepScheduler(**FLOW)),
        ("uni_pc_bh2", UniPCMultistepScheduler(**FLOW, solver_type="bh2")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_scheduler_is_diffusers_own_once_that_has_the_same_levels(name: str, plain: Any):
    ours: Any = noise_scheduler(name, "sgm_uniform", 6)
    ours.set_timesteps()
    plain.set_timesteps(6)
    plain.sigmas, plain.timesteps = ours.sigmas, ours.timesteps
    plain.set_begin_index(0)
    noise = torch.randn((1, 4, 4, 4), generator=torch.Generator("cpu").manual_seed(0))
    torch.testing.assert_close(run(ours, noise), run(plain, noise))


def test_every_documented_sampler_is_either_available_or_said_not_to_be():
    assert sorted([*AVAILABLE_SAMPLERS, *UNAVAILABLE_SAMPLERS]) == sorted(DOCUMENTED)


@pytest.mark.parametrize("name", UNAVAILABLE_SAMPLERS)
def test_a_sampler_that_is_not_available_yet_is_refused_with_those_that_are(name: str):
    with pytest.raises(
        UnsupportedParameter, match=rf"sampler: {name} is not available yet; use one of euler, "
    ):
        make_sampler(SchedulerChoice(name=name, sigma_schedule="karras"), 20, CPU)


def test_a_sampler_that_does_not_exist_is_invalid_and_not_unsupported():
    with pytest.raises(InvalidInput, match="sampler: eulr is not one of") as refused:
        make_sampler(SchedulerChoice(name="eulr"), 20, CPU)
    assert not isinstance(refused.value, UnsupportedParameter)
