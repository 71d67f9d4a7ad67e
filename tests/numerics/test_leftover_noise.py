"""A caller is told of the noise that a scheduler leaves, exactly where it leaves some."""

from __future__ import annotations

import pytest
import torch

from pipelines.denoising.sampler import NeedsUnconditional
from pipelines.request import SchedulerChoice
from pipelines.schedulers.flow.leftover_noise import leftover_noise_warnings
from pipelines.schedulers.flow.sampler import SAMPLERS, make_sampler
from pipelines.schedulers.leftover_noise import VISIBLE, LeftoverNoise
from pipelines.schedulers.names import NAMES, WITH_KARRAS_SIGMAS
from tests.numerics.gaussian_target import (
    CPU,
    MEAN,
    STABLE_DIFFUSION,
    GaussianTarget,
    noise,
    sampler,
    seeded,
    trajectory,
)

CHOICES = [
    *(SchedulerChoice(name=name) for name in NAMES),
    *(SchedulerChoice(name=name, use_karras_sigmas=True) for name in NAMES if name in WITH_KARRAS_SIGMAS),
]
THIN = torch.full_like(MEAN, 0.05)


def named(choice: SchedulerChoice) -> str:
    return f"{choice.name}{'-karras' if choice.use_karras_sigmas else ''}"


@pytest.fixture(scope="module")
def leftover_noise() -> LeftoverNoise:
    return LeftoverNoise(STABLE_DIFFUSION)


def measured(choice: SchedulerChoice, steps: int, drawn: int) -> float:
    """The noise around the mean of drawn pictures, of which many are drawn."""
    generator = seeded(8)
    one = sampler(choice, STABLE_DIFFUSION, steps, skip=steps - drawn)
    unit = noise(generator, 10)
    start = one.from_noise(unit) if drawn == steps else one.from_latents(MEAN.expand_as(unit), unit)
    *_, pictures = trajectory(one, start, GaussianTarget(STABLE_DIFFUSION, THIN), generator)
    return float((pictures - pictures.mean(0)).std()) * (10 / 9) ** 0.5


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_a_caller_is_warned_of_noise_where_there_is_some_and_nowhere_else(
    choice: SchedulerChoice, leftover_noise: LeftoverNoise
) -> None:
    for steps in (1, 2, 3, 4, 9, 20):
        for drawn in sorted({max(1, steps // 10), max(1, steps // 2), steps}):
            found = measured(choice, steps, drawn)
            warned = leftover_noise.warnings(choice, steps, drawn)
            if found > 1.2 * VISIBLE or found < VISIBLE / 1.2:
                assert bool(warned) == (found > VISIBLE), (steps, drawn, found)


@pytest.mark.parametrize(
    ("choice", "steps", "drawn"),
    [
        (SchedulerChoice(name="DEISMultistepScheduler", use_karras_sigmas=True), 1, 1),
        (SchedulerChoice(name="PNDMScheduler"), 2, 2),
        (SchedulerChoice(name="KarrasVeScheduler"), 3, 3),
        (SchedulerChoice(name="KarrasVeScheduler"), 4, 2),
        (SchedulerChoice(name="HeunDiscreteScheduler", use_karras_sigmas=False), 4, 4),
    ],
    ids=lambda value: value.name if isinstance(value, SchedulerChoice) else str(value),
)
def test_what_is_advised_against_noise_helps(
    choice: SchedulerChoice, steps: int, drawn: int, leftover_noise: LeftoverNoise
) -> None:
    (warning,) = leftover_noise.warnings(choice, steps, drawn)
    assert choice.name in warning
    assert f"{steps} step" in warning
    advised = int(warning.partition("ask for ")[2].split()[0])
    assert advised > steps
    for more in (advised, advised + 1, 20):
        assert measured(choice, more, int(more * drawn / steps)) < 1.2 * VISIBLE


def test_an_algorithm_that_leaves_noise_whatever_the_steps_is_named(leftover_noise: LeftoverNoise) -> None:
    choice = SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver")
    (warning,) = leftover_noise.warnings(choice, 20, 20)
    assert "sde-dpmsolver" in warning
    assert warning.endswith("ask for another algorithm_type")


def test_the_usual_settings_of_every_scheduler_say_nothing(leftover_noise: LeftoverNoise) -> None:
    for name in NAMES:
        if "KDPM2" not in name:
            for steps in (20, 25, 50):
                assert leftover_noise.warnings(SchedulerChoice(name=name), steps, steps) == ()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_what_a_network_predicts_changes_nothing_about_the_noise(prediction_type: str) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    leftover_noise = LeftoverNoise(config)
    name = "KarrasVeScheduler"
    assert leftover_noise.warnings(SchedulerChoice(name=name), 3, 3)
    assert not leftover_noise.warnings(SchedulerChoice(name=name), 20, 20)


@pytest.mark.parametrize("sampler_name", SAMPLERS)
def test_a_sampler_of_flows_is_told_of_where_it_leaves_noise(sampler_name: str) -> None:
    """A flow towards a single picture, which every sampler reaches that has enough steps."""
    for schedule in ("sgm_uniform", "normal"):
        for steps in (1, 2, 4, 8):
            choice = SchedulerChoice(name=sampler_name, sigma_schedule=schedule)
            one = make_sampler(choice, steps, CPU)
            generator = seeded(8)
            latents = noise(generator, 20)
            while not one.done:
                level = float(one.timestep) / 1000
                seen = one.model_input(latents)
                # The best prediction where pictures are normally distributed with a spread of 0.05.
                picture = seen * (1 - level) * 0.05**2 / ((1 - level) ** 2 * 0.05**2 + level**2)
                velocity = (seen - picture) / level
                if isinstance(one, NeedsUnconditional):
                    one.take_unconditional(velocity)
                latents = one.step(velocity, latents, generator)
            found = float(latents.std())
            if found > 1.2 * VISIBLE or found < VISIBLE / 1.2:
                warned = leftover_noise_warnings(choice, steps)
                assert bool(warned) == (found > VISIBLE), (schedule, steps, found)
                assert all(sampler_name in each for each in warned)


def test_the_defaults_of_the_sd3_page_leave_none() -> None:
    for name in SAMPLERS:
        assert leftover_noise_warnings(SchedulerChoice(name=name, sigma_schedule="sgm_uniform"), 20) == ()
