"""What holds for every sampler of sd3-med-pose, and for those that diffusers has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
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

from pipelines.denoising import step
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.errors import InvalidInput
from pipelines.group import group_key
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice
from pipelines.schedulers.flow.diffusers_schedulers import DIFFUSERS_SAMPLERS, noise_scheduler
from pipelines.schedulers.flow.sampler import ALGORITHMS, SAMPLERS, make_sampler, needs_unguided, sampler_on
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES, sigmas
from tests.numerics.gaussian_flow import COVARIANCE, destination, drawn, even, velocity

CPU = torch.device("cpu")
# fmt: off
DOCUMENTED = [
    "euler", "euler_pp", "euler_ancestral", "euler_ancestral_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm",
    "ipndm", "ipndm_v", "deis", "ddim", "uni_pc", "uni_pc_bh2",
]
STOCHASTIC = [name for name in DOCUMENTED if "ancestral" in name or "sde" in name or name in ("ddpm", "lcm")]

# fmt: on
TWICE = {"heun", "dpm_2", "dpm_2_ancestral"}
TWICE_INSIDE = {"dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu"}
"""Their first step from level 1 has no middle."""


def choice(name: str, schedule: str) -> SchedulerChoice:
    return SchedulerChoice(name=name, sigma_schedule=schedule)


def noise_of(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0))


def test_every_documented_sampler_draws():
    assert sorted(SAMPLERS) == sorted(DOCUMENTED)


def test_no_sampler_is_another_one_but_for_those_that_name_a_device():
    ends = {name: drawn(name, sigmas("simple", 6), noise_of(20, 2), seed=5) for name in DOCUMENTED}
    same = [
        (one, other)
        for index, one in enumerate(DOCUMENTED)
        for other in DOCUMENTED[index + 1 :]
        if torch.allclose(ends[one], ends[other], rtol=1e-4, atol=1e-4)
    ]
    assert same == [
        # Nothing guides here: see test_flow_algorithms for CFG++, and for DDIM.
        ("euler", "euler_pp"),
        ("euler", "ddim"),
        ("euler_pp", "ddim"),
        ("euler_ancestral", "euler_ancestral_pp"),
        ("dpmpp_sde", "dpmpp_sde_gpu"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        ("dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
    ]


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_sampler_on_every_schedule_is_finite_and_asks_as_often_as_it_says(name: str, schedule: str):
    noise = noise_of(5, 2)
    for steps in (1, 2, 3, 20, 100):
        sampler = make_sampler(choice(name, schedule), steps, CPU)
        latents, evaluations = noise, 0
        generator = torch.Generator().manual_seed(1)
        promised = sampler.total
        while not sampler.done:
            assert sampler.position == evaluations < sampler.total
            assert 0 < float(sampler.timestep) <= 1000
            prediction = velocity(latents, float(sampler.timestep) / 1000)
            latents = sampler.step(prediction, latents, generator)
            evaluations += 1
        assert latents.isfinite().all()
        assert sampler.position == sampler.total == evaluations
        assert promised == evaluations or name == "dpm_adaptive"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_sampler_evaluates_as_often_as_its_algorithm_needs(name: str):
    total = make_sampler(choice(name, "karras"), 10, CPU).total
    if name in TWICE:
        assert total == 19
    elif name in TWICE_INSIDE:
        assert total == 18
    else:
        assert total == (27 if name == "heunpp2" else 10)


def test_progress_of_dpm_adaptive_is_a_guess_that_ends_in_the_true_number():
    sampler = make_sampler(choice("dpm_adaptive", "karras"), 10, CPU)
    latents, totals = noise_of(20, 2), [sampler.total]
    while not sampler.done:
        latents = sampler.step(velocity(latents, float(sampler.timestep) / 1000), latents, torch.Generator())
        totals.append(sampler.total)
    assert totals[0] == 10
    assert totals[-1] == sampler.position > 10
    assert totals[-2] == totals[-1]
    assert max(totals) < totals[-1] + 10


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name not in STOCHASTIC])
def test_a_deterministic_sampler_comes_close_to_the_exact_path_on_every_schedule(name: str, schedule: str):
    noise = noise_of(200, 2)
    few, many = (
        float((drawn(name, sigmas(schedule, steps), noise) - destination(noise, 1.0)).abs().mean())
        for steps in (2, 100)
    )
    assert many < 0.03
    # dpm_adaptive looks at the ends of a schedule only, and most schedules have the same ones.
    assert many < 0.5 * few or name == "dpm_adaptive"


@pytest.mark.parametrize(
    "schedule",
    [
        name if name in ("sgm_uniform", "beta") else pytest.param(name, marks=pytest.mark.slow)
        for name in SIGMA_SCHEDULES
    ],
)
@pytest.mark.parametrize("name", [name for name in DOCUMENTED if not name.endswith("_gpu")])
def test_no_sampler_ends_in_noise_on_any_schedule(name: str, schedule: str):
    """Where a schedule jumps or its steps grow, a multistep sampler without a limit blows up differences.

    Deterministic ones end about as close as Euler's; stochastic ones have little more variance than the
    target, whose largest is 0.62. dpm_2_ancestral takes double steps, for which five or eight are too few.
    """
    noise = noise_of(1000, 2)
    for steps in (14, 20, 50) if name == "dpm_2_ancestral" else (5, 8, 14, 20, 50):
        levels = sigmas(schedule, steps)
        pictures = drawn(name, levels, noise, seed=1).double()
        if name in STOCHASTIC:
            assert float(torch.linalg.eigvalsh(pictures.T.cov() - COVARIANCE).max()) < 0.3
        else:
            exact = destination(noise, 1.0)
            error, of_euler = (
                float((drawn(each, levels, noise).double() - exact).square().mean().sqrt())
                for each in (name, "euler")
            )
            assert error < 1.2 * of_euler


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_same_seed_draws_the_same_whatever_the_global_generator_does(name: str):
    ends: list[Tensor] = []
    for count, seed in enumerate((1, 1, 2)):
        torch.manual_seed(count)
        ends.append(drawn(name, even(4), noise_of(3, 2), seed=seed))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2]) == (name not in STOCHASTIC)


def network(latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    """Every row at its own level, towards its own prompt."""
    rows = zip(latents, timesteps, strict=True)
    exact = torch.stack([velocity(row, float(timestep) / 1000) for row, timestep in rows])
    return exact - conditioning["prompt"]


def sample(name: str, seed: int, steps: int = 6, schedule: str = "sgm_uniform") -> Sample:
    generator = torch.Generator().manual_seed(seed)
    request = PoseToImage(
        pipeline="sd3-medium-pose",
        prompt="",
        image=RGBImage(1, 1, bytes(3)),
        controlnet_conditioning_scale=0.8,
        width=64,
        height=64,
        num_inference_steps=steps,
        guidance_scale=3.0,
        seeds=(seed,),
    )
    return Sample(
        request=request,
        index=0,
        key=group_key(request),
        latents=torch.randn((1, 4, 2), generator=generator),
        conditioning=Conditioning({"prompt": torch.full((1, 1, 1), 0.3)}, {"prompt": torch.zeros(1, 1, 1)}),
        guidance_scale=3.0,
        generator=generator,
        sampler=make_sampler(choice(name, schedule), steps, CPU),
        denoiser=Denoiser(network),
        finish=lambda sample: Picture(RGBImage(1, 1, bytes(3))),
    )


def test_every_sampler_on_every_schedule_draws_the_same_alone_and_among_all_the_others():
    settings = list(product(DOCUMENTED, SIGMA_SCHEDULES))
    waiting = [sample(name, seed, 5, schedule) for seed, (name, schedule) in enumerate(settings)]
    group: list[Sample] = []
    together = list(waiting)
    while waiting or group:
        group += waiting[:20]
        del waiting[:20]
        step.advance(group)
        group = [member for member in group if not member.sampler.done]
    for seed, ((name, schedule), member) in enumerate(zip(settings, together, strict=True)):
        alone = sample(name, seed, 5, schedule)
        while not alone.sampler.done:
            step.advance([alone])
        message = f"{name} {schedule}"
        torch.testing.assert_close(member.latents, alone.latents, rtol=0, atol=1e-5, msg=message)


def test_cfg_plus_plus_hears_what_the_network_says_without_the_prompt():
    drawing = sample("euler_pp", 3, steps=1)
    # Not from level 1, where the noise of the unguided prediction has no weight.
    level, following = 0.8, 0.5
    drawing.sampler = sampler_on("euler_pp", torch.tensor([level, following, 0.0]), CPU)
    latents = drawing.latents
    step.advance([drawing])
    without = velocity(latents, level)
    picture = latents - level * (without - 3.0 * 0.3)
    expected = (1 - following) * picture + following * (latents + (1 - level) * without)
    torch.testing.assert_close(drawing.latents, expected)


def test_only_cfg_plus_plus_needs_the_negative_prompt_where_nothing_is_guided():
    assert [name for name in DOCUMENTED if needs_unguided(name)] == ["euler_pp", "euler_ancestral_pp"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_half_precision_is_for_the_network_alone(name: str):
    half = make_sampler(choice(name, "karras"), 20, CPU)
    latents = noise_of(50, 2).half()
    exact = drawn(name, sigmas("karras", 20), latents.float(), seed=1)
    generator = torch.Generator().manual_seed(1)
    while not half.done:
        assert latents.dtype == half.model_input(latents).dtype == torch.float16
        prediction = velocity(latents.float(), float(half.timestep) / 1000).half()
        latents = half.step(prediction, latents, generator)
    torch.testing.assert_close(latents.float(), exact, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "uni_pc", "uni_pc_bh2", "deis"])
def test_samplers_of_second_order_come_closer_than_euler(name: str):
    noise = noise_of(50, 2)
    of_name, of_euler = (
        (drawn(each, sigmas("karras", 20), noise) - destination(noise, 1.0)).abs().mean()
        for each in (name, "euler")
    )
    assert of_name < 0.5 * of_euler


def test_the_infinite_first_step_of_uni_pc_is_not_overcorrected():
    noise = noise_of(50, 2)
    assert (drawn("uni_pc", sigmas("karras", 5), noise) - destination(noise, 1.0)).abs().mean() < 0.15


def test_uni_pc_starts_where_the_half_log_snr_is_finite():
    scheduler = noise_scheduler("uni_pc", sigmas("simple", 4))
    scheduler.set_timesteps()
    assert 0.999998 < float(scheduler.sigmas[0]) < 1.0
    assert float(scheduler.timesteps[0]) == 1000.0


@pytest.mark.parametrize("name", DIFFUSERS_SAMPLERS)
def test_the_network_is_told_a_thousand_times_the_level(name: str):
    sampler = make_sampler(choice(name, "karras"), 4, CPU)
    times: list[float] = []
    latents = torch.zeros(1, 4, 2, 2)
    while not sampler.done:
        assert sampler.timestep.shape == ()
        times.append(float(sampler.timestep))
        latents = sampler.step(latents, latents, torch.Generator("cpu"))
    assert sorted(set(times), reverse=True) == pytest.approx((1000 * sigmas("karras", 4)[:-1]).tolist())


def test_nothing_chosen_is_what_the_checkpoint_itself_would_do():
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    own.set_timesteps(7)
    levels = noise_scheduler("euler", sigmas("normal", 7))
    levels.set_timesteps()
    torch.testing.assert_close(levels.sigmas, own.sigmas)
    torch.testing.assert_close(levels.timesteps, own.timesteps)
    assert make_sampler(SchedulerChoice(), 7, CPU).total == 7


def run(scheduler: Any, latents: Tensor) -> Tensor:
    for timestep in scheduler.timesteps:
        prediction = velocity(latents, float(timestep) / 1000)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
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
    ours: Any = noise_scheduler(name, sigmas("sgm_uniform", 6))
    ours.set_timesteps()
    plain.set_timesteps(6)
    plain.sigmas, plain.timesteps = ours.sigmas, ours.timesteps
    plain.set_begin_index(0)
    noise = noise_of(20, 2)
    torch.testing.assert_close(run(ours, noise), run(plain, noise))


def test_a_sampler_that_does_not_exist_is_invalid():
    with pytest.raises(InvalidInput, match="sampler: eulr is not one of euler, "):
        make_sampler(SchedulerChoice(name="eulr"), 20, CPU)
