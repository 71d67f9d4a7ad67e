"""The noise schedules behind the documented scheduler names of Kolors and sd1.5-img2img."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler
from server.endpoints.segmind import kolors, stable_diffusion
from tests.numerics.gaussian_target import CPU, STABLE_DIFFUSION, GaussianTarget, sampler

KOLORS: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.014,
    "num_train_timesteps": 1100,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
"""What the original's scheduler configuration says."""


@pytest.mark.parametrize("name", get_args(kolors.Scheduler))
def test_every_scheduler_of_kolors_draws_on_the_originals_noise_schedule(name: kolors.Scheduler) -> None:
    scheduler: Any = make_scheduler(kolors.noise_scheduler(name), KOLORS)
    config = scheduler.config
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.014, "scaled_linear")
    assert (config.num_train_timesteps, config.timestep_spacing) == (1100, "leading")
    first = float(DiffusersSampler(scheduler, 25, CPU).timestep)
    # 25 steps of 44 training times, and the offset; the multistep solvers divide by one step more.
    assert first == 24 * 44 + 1 if name.startswith("Euler") else 1000 < first < 1100


def test_the_sde_karras_of_kolors_is_that_algorithm_on_karras_noise_levels() -> None:
    scheduler: Any = make_scheduler(kolors.noise_scheduler("DPMSolverMultistepScheduler_SDE_karras"), KOLORS)
    assert scheduler.config.algorithm_type == "sde-dpmsolver++"
    scheduler.set_timesteps(10)
    assert is_karras(scheduler.sigmas[:-1].numpy())


@pytest.mark.parametrize(("name", "every"), [("DPM2 Karras", 2), ("DPM2 a Karras", 2)])
def test_dpm2_karras_moves_through_karras_noise_levels(name: stable_diffusion.Scheduler, every: int) -> None:
    one = sampler(stable_diffusion.NOISE_SCHEDULERS[name], STABLE_DIFFUSION, 10)
    target = GaussianTarget(STABLE_DIFFUSION)
    visited: list[float] = []
    latents = one.from_noise(torch.zeros(1, 4, 8, 8))
    while not one.done:
        visited.append(float(target.sigmas(one.timestep.reshape(1))))
        latents = one.step(torch.zeros_like(latents), latents, torch.Generator())
    assert is_karras(np.array(visited[::every]), tolerance=0.01)


@pytest.mark.parametrize("name", [name for name in stable_diffusion.NOISE_SCHEDULERS if "Karras" not in name])
def test_the_others_do_not(name: stable_diffusion.Scheduler) -> None:
    scheduler: Any = make_scheduler(stable_diffusion.NOISE_SCHEDULERS[name], STABLE_DIFFUSION)
    assert not getattr(scheduler.config, "use_karras_sigmas", False)


def is_karras(sigmas: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Karras et al. 2022, equation 5: the seventh roots lie at even distances."""
    roots = sigmas ** (1 / 7)
    return bool(np.allclose(roots, np.linspace(roots[0], roots[-1], len(roots)), rtol=tolerance))
