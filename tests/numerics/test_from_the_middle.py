"""Noise schedulers entered in the middle of their schedule, as image to image does, leave no noise behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from pipelines.request import SchedulerChoice
from pipelines.schedulers.names import NAMES, WITH_KARRAS_SIGMAS
from tests.numerics.gaussian_target import (
    MEAN,
    SPREAD,
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
"""Pictures that hardly differ: what is found beside their mean is noise that a scheduler has left."""

VISIBLE = 0.13
"""Noise in latents whose variance is about one; DPM2 ancestral leaves 0.12 of 20 steps wherever it begins."""

STRENGTHS = (0.1, 0.3, 0.5)
PICTURES = 20


def named(choice: SchedulerChoice) -> str:
    return f"{choice.name}{'-karras' if choice.use_karras_sigmas else ''}"


def redrawn(
    choice: SchedulerChoice, config: Mapping[str, Any], steps: int, strength: float, spread: torch.Tensor
) -> torch.Tensor:
    """Pictures of a distribution, sent through image to image; their mean taken off."""
    generator = seeded(3)
    one = sampler(choice, config, steps, skip=steps - int(steps * strength))
    sent = MEAN + spread * noise(generator, PICTURES)
    start = one.from_latents(sent, noise(generator, PICTURES))
    *_, drawn = trajectory(one, start, GaussianTarget(config, spread), generator)
    return drawn - MEAN


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_no_noise_is_left_of_what_a_weak_redrawing_puts_on(choice: SchedulerChoice, steps: int) -> None:
    left = [float(redrawn(choice, STABLE_DIFFUSION, steps, each, THIN).std()) for each in STRENGTHS]
    assert max(left) < VISIBLE


@pytest.mark.parametrize("choice", [each for each in CHOICES if "LCM" not in (each.name or "")], ids=named)
def test_a_weak_redrawing_keeps_the_distribution_of_what_was_sent(choice: SchedulerChoice) -> None:
    for strength in STRENGTHS:
        values = redrawn(choice, STABLE_DIFFUSION, 20, strength, SPREAD) / SPREAD
        assert abs(float(values.mean())) < 0.03
        # Those of first order take a tenth away.
        assert float(values.std()) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", ["LMSDiscreteScheduler", "PNDMScheduler"])
def test_the_two_that_diffusers_enters_wrongly_are_right_wherever_they_begin(
    name: str, spacing: str, prediction_type: str
) -> None:
    config = {**STABLE_DIFFUSION, "timestep_spacing": spacing, "prediction_type": prediction_type}
    for drawn in (3, 6, 13):
        left = redrawn(SchedulerChoice(name=name), config, 20, (drawn + 0.5) / 20, THIN)
        assert float(left.std()) < VISIBLE, drawn


def test_pndm_of_a_checkpoint_that_wants_runge_kutta_steps_first_does_without_them_in_the_middle() -> None:
    config = {**STABLE_DIFFUSION, "skip_prk_steps": False}
    for strength in STRENGTHS:
        left = redrawn(SchedulerChoice(name="PNDMScheduler"), config, 20, strength, THIN)
        assert float(left.std()) < VISIBLE


def test_one_step_of_pndm_is_one_step_of_ddim() -> None:
    one, other = (
        redrawn(SchedulerChoice(name=name), STABLE_DIFFUSION, 10, 0.1, SPREAD)
        for name in ("PNDMScheduler", "DDIMScheduler")
    )
    assert torch.allclose(one, other, rtol=0, atol=1e-6)


def test_ipndm_draws_from_nothing_but_noise_too() -> None:
    """A schedule rescaled to zero terminal signal begins with a squared alpha of zero."""
    config = {
        **STABLE_DIFFUSION,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    one = sampler(SchedulerChoice(name="IPNDMScheduler"), config, 4)
    for latents in trajectory(
        one, noise(seeded(1)), GaussianTarget(config), seeded(2), lambda seen, *_: -seen
    ):
        assert latents.isfinite().all()


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_a_configuration_that_another_scheduler_left_leaves_no_noise(choice: SchedulerChoice) -> None:
    """A single-step solver's says that the last steps have its full order."""
    config = {**STABLE_DIFFUSION, "_class_name": "DPMSolverSinglestepScheduler", "lower_order_final": False}
    left = redrawn(choice, config, 20, 0.5, THIN)
    assert float(left.std()) < VISIBLE
