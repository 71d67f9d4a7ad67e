"""Every noise scheduler against the exact answer: mean, covariance, start, prediction type, company."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from pipelines.denoising import step
from pipelines.denoising.sample import Sample
from pipelines.group import GroupKey
from pipelines.request import SchedulerChoice, TextToImage
from pipelines.schedulers.ipndm import COEFFICIENTS
from pipelines.schedulers.names import ALGORITHM_TYPES, NAMES, WITH_KARRAS_SIGMAS
from pipelines.schedulers.sampler import DiffusersSampler
from tests.numerics.gaussian_target import (
    CPU,
    MEAN,
    NOTHING,
    SPREAD,
    STABLE_DIFFUSION,
    GaussianTarget,
    noise,
    sampler,
    seeded,
    seen,
    trajectory,
)

PREDICTIONS = ("epsilon", "v_prediction")


STOCHASTIC = [
    SchedulerChoice(name="DDPMScheduler"),
    SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    SchedulerChoice(name="KDPM2AncestralDiscreteScheduler"),
    SchedulerChoice(name="KDPM2AncestralDiscreteScheduler", use_karras_sigmas=True),
    SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver"),
    SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
    SchedulerChoice(
        name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    ),
    SchedulerChoice(
        name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver", use_karras_sigmas=True
    ),
    SchedulerChoice(name="DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++"),
    SchedulerChoice(
        name="DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    ),
    SchedulerChoice(name="KarrasVeScheduler"),
    SchedulerChoice(name="ScoreSdeVeScheduler"),
]


def standardised(choice: SchedulerChoice, config: dict[str, Any], steps: int, pictures: int) -> torch.Tensor:
    """Drawn values less their mean, over their spread: (pictures, 256), normal with variance one if right."""
    target = GaussianTarget(config)
    generator = seeded(3)
    one = sampler(choice, config, steps)
    clean = MEAN + SPREAD * noise(generator, pictures)
    *_, drawn = trajectory(one, one.from_latents(clean, noise(generator, pictures)), target, generator)
    return ((drawn - MEAN) / SPREAD).reshape(pictures, -1)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("choice", STOCHASTIC, ids=lambda choice: f"{choice.name}-{choice.algorithm_type}")
@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
def test_a_stochastic_scheduler_reproduces_mean_and_covariance(
    choice: SchedulerChoice, prediction_type: str
) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    pictures = 120
    coarse = standardised(choice, config, 20, pictures)
    fine = standardised(choice, config, 100, pictures)
    assert abs(float(fine.mean())) < 0.02
    assert float(fine.mean(0).std()) * pictures**0.5 == pytest.approx(1, abs=0.2)
    # Those of first order are still a few percent too narrow at 100 steps, and much more so at 20.
    bias, coarse_bias = (abs(float(values.std()) - 1) for values in (fine, coarse))
    assert bias < max(0.02, 0.5 * coarse_bias)
    assert bias < 0.07
    by_spread = fine.reshape(pictures, 16, 16).std(dim=(0, 1))
    assert float((by_spread - by_spread.mean()).abs().max()) < 0.06
    off_diagonal = torch.corrcoef(fine.T)[~torch.eye(256, dtype=torch.bool)]
    assert float(off_diagonal.square().mean()) * pictures == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_a_consistent_network_gives_lcm_exactly_its_pictures(steps: int) -> None:
    """A latent consistency model predicts where the probability flow ends, not the expected picture."""
    config = dict(STABLE_DIFFUSION)
    target = GaussianTarget(config)

    def consistent(latents: torch.Tensor, times: torch.Tensor, _: Any) -> torch.Tensor:
        sigma = target.sigmas(times)
        spread_out = latents * (1 + sigma**2).sqrt()
        return (spread_out - target.flow(spread_out, sigma, 0.0)) / sigma

    generator = seeded(3)
    one = sampler(SchedulerChoice(name="LCMScheduler"), config, steps)
    clean = MEAN + SPREAD * noise(generator, 120)
    start = one.from_latents(clean, noise(generator, 120))
    *_, drawn = trajectory(one, start, target, generator, consistent)
    values = ((drawn - MEAN) / SPREAD).reshape(120, -1)
    assert abs(float(values.mean())) < 0.02
    assert float(values.std()) == pytest.approx(1, abs=0.02)


CHOICES = [
    *(SchedulerChoice(name=name) for name in NAMES),
    *(SchedulerChoice(name=name, use_karras_sigmas=True) for name in NAMES if name in WITH_KARRAS_SIGMAS),
]


def named(choice: SchedulerChoice) -> str:
    return f"{choice.name}{'-karras' if choice.use_karras_sigmas else ''}"


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_a_picture_starts_under_the_very_noise_that_the_network_is_told(choice: SchedulerChoice) -> None:
    config = dict(STABLE_DIFFUSION)
    for skip in (0, 5):
        one = sampler(choice, config, 20, skip=skip)
        picture, unit = MEAN, noise(seeded(1))
        found, sigma = seen(one, one.from_latents(picture, unit), GaussianTarget(config))
        # Karras noise levels lie between training times; some schedulers tell the network the nearest one.
        tolerance = 0.01 if choice.use_karras_sigmas else 1e-3
        assert float((found - picture - sigma * unit).abs().max()) < tolerance * float(1 + 3 * sigma.max())


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("choice", [choice for choice in CHOICES if "LCM" not in choice.name], ids=named)
def test_from_the_middle_of_its_schedule_a_scheduler_draws_the_right_pictures(
    choice: SchedulerChoice, prediction_type: str
) -> None:
    """Image to image at strength 0.5 does so; what is drawn has the distribution of what was sent."""
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    generator = seeded(3)
    one = sampler(choice, config, 40, skip=20)
    assert one.total == pytest.approx(sampler(choice, config, 40).total / 2, abs=1)
    sent = MEAN + SPREAD * noise(generator, 60)
    start = one.from_latents(sent, noise(generator, 60))
    *_, drawn = trajectory(one, start, GaussianTarget(config), generator)
    values = (drawn - MEAN) / SPREAD
    assert abs(float(values.mean())) < 0.03
    assert float(values.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("choice", [*CHOICES, *STOCHASTIC], ids=named)
@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
def test_no_scheduler_ends_in_noise_with_the_usual_number_of_steps(choice: SchedulerChoice) -> None:
    for steps in (12, 20, 50):
        assert float(standardised(choice, dict(STABLE_DIFFUSION), steps, 20).std()) < 1.2


@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
@pytest.mark.parametrize("karras", [False, True])
def test_few_steps_of_the_dpm_solvers_need_the_algorithms_with_plus_signs(karras: bool) -> None:
    """Those without weigh predicted noise with what grows as the signal-to-noise ratio does in a step."""
    for name, known in ALGORITHM_TYPES.items():
        for algorithm in known:
            choice = SchedulerChoice(name=name, algorithm_type=algorithm, use_karras_sigmas=karras)
            width = float(standardised(choice, dict(STABLE_DIFFUSION), 4, 20).std())
            if algorithm.endswith("++"):
                assert width < 1.2, name
            elif algorithm == "sde-dpmsolver":
                assert width > 1.5


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_from_noise_the_network_first_sees_noise_of_variance_one(choice: SchedulerChoice) -> None:
    one = sampler(choice, STABLE_DIFFUSION, 20)
    unit = noise(seeded(1))
    assert float((one.model_input(one.from_noise(unit)) - unit).abs().max()) < 0.02


@pytest.mark.parametrize("choice", [*CHOICES, *STOCHASTIC], ids=named)
@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
def test_a_network_that_says_v_draws_what_one_that_says_the_noise_draws(choice: SchedulerChoice) -> None:
    drawn: list[torch.Tensor] = []
    for prediction_type in PREDICTIONS:
        config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
        one, generator = sampler(choice, config, 12), seeded(1)
        start = one.from_noise(noise(generator))
        *_, picture = trajectory(one, start, GaussianTarget(config), generator)
        drawn.append(picture)
    # A time that was rounded, as Karras noise levels are, means another error in v than in the noise.
    tolerance = 0.01 if choice.use_karras_sigmas else 1e-3
    assert float((drawn[0] - drawn[1]).abs().max()) < tolerance


def test_ipndm_draws_where_diffusers_own_of_that_name_does_not() -> None:
    """Its times between 0 and 1 make the network take every evaluation for the least noise it knows."""
    config = dict(STABLE_DIFFUSION)
    target = GaussianTarget(config)
    shipped = DiffusersSampler(diffusers.IPNDMScheduler.from_config(config), 25, CPU)
    ours = sampler(SchedulerChoice(name="IPNDMScheduler"), config, 25)
    errors: list[float] = []
    for one in (shipped, ours):
        unit = noise(seeded(1), 50)
        *_, drawn = trajectory(one, one.from_noise(unit), target, seeded(2))
        exact = target.flow(unit * 14.6, torch.tensor(14.6), 0.0)
        errors.append(float((drawn - exact).abs().mean()))
    assert errors[0] > 0.5
    assert errors[1] < 0.15


def sample_of(choice: SchedulerChoice, config: dict[str, Any], number: int) -> Sample:
    one = sampler(choice, config, 6 + number % 3)
    generator = seeded(number)
    request = TextToImage(
        pipeline="gaussian",
        prompt="",
        width=64,
        height=64,
        num_inference_steps=6,
        guidance_scale=1,
        seeds=(1,),
    )
    return Sample(
        request=request,
        index=0,
        key=GroupKey("gaussian", "denoise", 64, 64),
        latents=one.from_noise(noise(generator)),
        conditioning=NOTHING,
        guidance_scale=1.0,
        generator=generator,
        sampler=one,
        denoiser=GaussianTarget(config).denoiser,
        finish=lambda sample: sample,
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", pytest.param("v_prediction", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
def test_every_scheduler_draws_the_same_alone_and_among_all_others(prediction_type: str) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    choices = [*CHOICES, *STOCHASTIC]
    alone: list[torch.Tensor] = []
    for number, choice in enumerate(choices):
        sample = sample_of(choice, config, number)
        while not sample.sampler.done:
            step.advance([sample])
        alone.append(sample.latents)
    torch.manual_seed(99)
    together = [sample_of(choice, config, number) for number, choice in enumerate(choices)]
    turn = 0
    while running := [sample for sample in together[: turn + 1] if not sample.sampler.done]:
        step.advance(running)  # one more joins at each turn
        turn += 1
    assert turn >= len(choices)
    for choice, sample, expected in zip(choices, together, alone, strict=True):
        assert torch.allclose(sample.latents, expected, rtol=0, atol=1e-5), choice


def test_the_predictor_of_score_sde_has_the_right_noise_with_few_steps_too() -> None:
    """Reverse diffusion, which agrees with it in the limit, is a tenth too noisy at 20 steps."""
    choice = SchedulerChoice(name="ScoreSdeVeScheduler")
    assert 0.92 < float(standardised(choice, dict(STABLE_DIFFUSION), 20, 120).std()) < 1.03


@pytest.mark.parametrize("order_of_method", [1, 2, 3, 4])
def test_the_weights_of_ipndm_integrate_polynomials_over_one_step(order_of_method: int) -> None:
    weights = np.array(COEFFICIENTS[order_of_method - 1])
    times = -np.arange(order_of_method)
    for power in range(order_of_method):
        assert float(weights @ times.astype(float) ** power) == pytest.approx(1 / (power + 1))
