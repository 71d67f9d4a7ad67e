"""Documented scheduler names and the samplers made of them; no network needed."""

from __future__ import annotations

import contextlib
from inspect import signature
from typing import Any

import diffusers
import pytest
import torch

from pipelines.errors import InvalidInput
from pipelines.request import SchedulerChoice
from pipelines.schedulers.names import ALGORITHM_TYPES, NAMES, NOTES, WITH_KARRAS_SIGMAS
from pipelines.schedulers.sampler import OWN, DiffusersSampler, make_scheduler

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def sampler(name: str, steps: int, *, skip: int = 0, **options: Any) -> DiffusersSampler:
    scheduler = make_scheduler(SchedulerChoice(name=name, **options), CONFIG)
    return DiffusersSampler(scheduler, steps, CPU, skip=skip)


def drawn(one: DiffusersSampler, seed: int = 7) -> torch.Tensor:
    """Draw with a network that sees a tenth of the noise."""
    generator = torch.Generator("cpu").manual_seed(seed)
    latents = one.from_noise(torch.randn(1, 4, 4, 4, generator=generator))
    while not one.done:
        latents = one.step(one.model_input(latents) * 0.1, latents, generator)
    return latents


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_a_documented_name_makes_the_class_of_that_name_on_the_checkpoints_noise_schedule(name: str) -> None:
    scheduler = make_scheduler(SchedulerChoice(name=name), CONFIG)
    assert isinstance(scheduler, getattr(diffusers, name))
    assert scheduler.config.beta_end == 0.012


def test_ddim_inversion_used_as_a_sampler_is_deterministic_ddim() -> None:
    inverse, plain = (drawn(sampler(name, 6)) for name in ("DDIMInverseScheduler", "DDIMScheduler"))
    assert torch.equal(inverse, plain)
    assert "deterministic DDIM" in NOTES["DDIMInverseScheduler"]


@pytest.mark.parametrize("name", NAMES)
def test_no_scheduler_clips_latents_that_the_checkpoint_does_not_want_clipped(name: str) -> None:
    config: Any = make_scheduler(SchedulerChoice(name=name), CONFIG)
    assert not getattr(getattr(config, "config", None), "clip_sample", False)


@pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_what_is_said_of_a_schedulers_options_agrees_with_its_class(name: str) -> None:
    scheduler: Any = getattr(diffusers, name)
    assert (name in WITH_KARRAS_SIGMAS) == ("use_karras_sigmas" in signature(scheduler).parameters)
    accepted: set[str] = set()
    for algorithm in ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"):
        if "algorithm_type" in signature(scheduler).parameters:
            with contextlib.suppress(NotImplementedError, ValueError):
                made = scheduler.from_config({"algorithm_type": algorithm, "final_sigmas_type": "sigma_min"})
                accepted |= {made.config.algorithm_type} & {algorithm}
    assert set(ALGORITHM_TYPES.get(name, ())) == accepted


def test_no_name_makes_the_checkpoints_own() -> None:
    assert isinstance(make_scheduler(SchedulerChoice(), CONFIG), diffusers.PNDMScheduler)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "__init__", "euler"])
def test_nothing_else_in_diffusers_can_be_named(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"scheduler: {name} is not one of DDPMScheduler"):
        make_scheduler(SchedulerChoice(name=name), CONFIG)


@pytest.mark.parametrize("name", sorted(WITH_KARRAS_SIGMAS))
def test_karras_sigmas_can_be_switched_on_off_and_left_as_they_are(name: str) -> None:
    exclusive = CONFIG | {"use_exponential_sigmas": True}
    assert make_scheduler(
        SchedulerChoice(name=name, use_karras_sigmas=True), exclusive
    ).config.use_karras_sigmas
    karras = CONFIG | {"use_karras_sigmas": True}
    off = make_scheduler(SchedulerChoice(name=name, use_karras_sigmas=False), karras)
    assert not off.config.use_karras_sigmas
    assert make_scheduler(SchedulerChoice(name=name), karras).config.use_karras_sigmas


def test_karras_sigmas_change_what_is_drawn() -> None:
    plain, karras = (
        drawn(sampler("EulerDiscreteScheduler", 5, use_karras_sigmas=on)) for on in (False, True)
    )
    assert not torch.equal(plain, karras)


@pytest.mark.parametrize(
    ("algorithm_type", "final_sigmas_type"),
    [
        ("dpmsolver", "sigma_min"),
        ("dpmsolver++", "zero"),
        ("sde-dpmsolver", "sigma_min"),
        ("sde-dpmsolver++", "zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:.algorithm_types dpmsolver:FutureWarning")
def test_every_algorithm_type_of_the_multistep_solver_draws(
    algorithm_type: str, final_sigmas_type: str
) -> None:
    choice = SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type=algorithm_type)
    scheduler = make_scheduler(choice, CONFIG)
    assert scheduler.config.algorithm_type == algorithm_type
    assert scheduler.config.final_sigmas_type == final_sigmas_type
    assert drawn(DiffusersSampler(scheduler, 6, CPU)).isfinite().all()


def test_an_algorithm_type_that_does_not_exist_is_refused() -> None:
    choice = SchedulerChoice(name="DPMSolverMultistepScheduler", algorithm_type="deis")
    with pytest.raises(InvalidInput, match="algorithm_type: deis is not one of dpmsolver, "):
        make_scheduler(choice, CONFIG)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_KARRAS_SIGMAS])
def test_options_that_a_scheduler_does_not_have_change_nothing(name: str) -> None:
    plain = drawn(sampler(name, 5))
    assert torch.equal(
        plain, drawn(sampler(name, 5, use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_every_scheduler_draws_with_few_and_many_steps(name: str, steps: int) -> None:
    one = sampler(name, steps)
    assert drawn(one).isfinite().all()
    assert one.done
    assert one.position == one.total


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("DDIMScheduler", 6),
        ("PNDMScheduler", 7),
        ("HeunDiscreteScheduler", 11),
        ("KDPM2DiscreteScheduler", 11),
        ("IPNDMScheduler", 6),
        ("KarrasVeScheduler", 11),
        ("ScoreSdeVeScheduler", 12),
    ],
)
def test_the_total_counts_network_evaluations(name: str, total: int) -> None:
    assert sampler(name, 6).total == total


@pytest.mark.parametrize("name", NAMES)
def test_skipped_steps_are_not_drawn_and_the_rest_is(name: str) -> None:
    whole, rest = sampler(name, 8), sampler(name, 8, skip=6)
    generator = torch.Generator("cpu").manual_seed(1)
    picture = torch.zeros(1, 4, 4, 4)
    latents = rest.from_latents(picture, torch.randn(1, 4, 4, 4, generator=generator))
    assert float(latents.std()) < float(whole.from_noise(torch.ones(1)).abs().max())
    assert rest.total < whole.total
    while not rest.done:
        latents = rest.step(rest.model_input(latents) * 0.1, latents, generator)
    assert latents.isfinite().all()


def test_more_steps_than_a_scheduler_can_do_are_refused() -> None:
    with pytest.raises(InvalidInput, match="num_inference_steps: LCMScheduler cannot do 60 steps"):
        sampler("LCMScheduler", 60)


@pytest.mark.parametrize(
    "name",
    [
        "EulerAncestralDiscreteScheduler",
        "DDPMScheduler",
        "LCMScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KarrasVeScheduler",
        "ScoreSdeVeScheduler",
    ],
)
def test_the_noise_of_a_stochastic_scheduler_comes_from_the_samples_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    first = drawn(sampler(name, 5), seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, drawn(sampler(name, 5), seed=7))
    assert not torch.equal(first, drawn(sampler(name, 5), seed=8))


def test_samplers_do_not_share_their_counters() -> None:
    alone = drawn(sampler("UniPCMultistepScheduler", 6))
    one, other = sampler("UniPCMultistepScheduler", 6), sampler("UniPCMultistepScheduler", 3)
    generator = torch.Generator("cpu").manual_seed(7)
    latents = one.from_noise(torch.randn(1, 4, 4, 4, generator=generator))
    between = torch.ones(1, 4, 4, 4)
    while not one.done:
        latents = one.step(one.model_input(latents) * 0.1, latents, generator)
        if not other.done:
            between = other.step(other.model_input(between), between, generator)
    assert torch.equal(latents, alone)
