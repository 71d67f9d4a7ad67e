"""A network that is right: where pictures are normally distributed, the best prediction has a closed form.

Every value of a picture is drawn from a normal distribution of its own (``MEAN``, ``SPREAD``). Under noise of
level sigma (picture + sigma * noise) the expected picture is a weighted mean of what is seen and of ``MEAN``;
what the probability flow ODE (Karras et al. 2022, equation 1) keeps is (x - MEAN) / sqrt(SPREAD^2 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from pipelines.denoising.sample import Conditioning, Denoiser
from pipelines.request import SchedulerChoice
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler

CPU = torch.device("cpu")
SHAPE = (1, 4, 8, 8)
MEAN = torch.linspace(-1.5, 1.5, 256, dtype=torch.float64).reshape(SHAPE)
SPREAD = torch.linspace(0.5, 1.5, 16, dtype=torch.float64).repeat(16).reshape(SHAPE)

STABLE_DIFFUSION: Mapping[str, Any] = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def geometric(largest: float, smallest: float, times: int) -> dict[str, Any]:
    """A noise schedule whose noise levels grow by the same factor from each training time to the next.

    Stable Diffusion's own cannot show an order of convergence: its first training times lie a factor of 1.4
    apart, whatever the number of steps.
    """
    sigmas = np.geomspace(smallest, largest, times)
    signal = 1 / (1 + sigmas**2)
    betas = 1 - signal / np.concatenate([[1.0], signal[:-1]])
    return {**STABLE_DIFFUSION, "num_train_timesteps": times, "trained_betas": betas.tolist()}


@dataclass(frozen=True)
class GaussianTarget:
    """The network of a checkpoint with that scheduler configuration, for one distribution of pictures.

    Attributes:
        spread: the standard deviation of each value of the pictures.
    """

    config: Mapping[str, Any]
    spread: Tensor = field(default=SPREAD, compare=False)

    def sigmas(self, times: Tensor) -> Tensor:
        """Noise levels of training times, between two of them by the logarithm; shaped to go with latents."""
        known = self._logarithms
        return torch.from_numpy(np.exp(np.interp(times.numpy(), np.arange(len(known)), known))).reshape(
            -1, 1, 1, 1
        )

    @cached_property
    def _logarithms(self) -> np.ndarray:
        signal = diffusers.DDIMScheduler.from_config(dict(self.config)).alphas_cumprod.double().numpy()
        return np.log((1 - signal) / signal) / 2

    def predict(self, latents: Tensor, times: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """What the network says to its (variance-preserving) input."""
        sigma = self.sigmas(times)
        alpha = 1 / (1 + sigma**2).sqrt()
        spread = self.spread
        picture = MEAN + spread**2 / (spread**2 + sigma**2) * (latents / alpha - MEAN)
        noise = (latents / alpha - picture) / sigma
        if self.config.get("prediction_type") == "v_prediction":
            return alpha * noise - alpha * sigma * picture
        return noise

    def flow(self, latents: Tensor, sigma: Tensor, to: Tensor | float) -> Tensor:
        """The exact solution: picture + sigma * noise, carried to another noise level."""
        spread = self.spread
        return MEAN + (latents - MEAN) * ((spread**2 + to**2) / (spread**2 + sigma**2)).sqrt()

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(self.predict)


NOTHING = Conditioning({}, None)


def sampler(
    choice: SchedulerChoice, config: Mapping[str, Any], steps: int, *, skip: int = 0
) -> DiffusersSampler:
    return DiffusersSampler(make_scheduler(choice, config), steps, CPU, skip=skip)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def noise(generator: torch.Generator, pictures: int = 1) -> Tensor:
    return torch.randn((pictures, *SHAPE[1:]), generator=generator, dtype=torch.float64)


def seen(one: DiffusersSampler, latents: Tensor, target: GaussianTarget) -> tuple[Tensor, Tensor]:
    """The latents as the network will see them next, as picture + sigma * noise, and that sigma."""
    sigma = target.sigmas(one.timestep.reshape(1))
    return one.model_input(latents) * (1 + sigma**2).sqrt(), sigma


def trajectory(
    one: DiffusersSampler,
    latents: Tensor,
    target: GaussianTarget,
    generator: torch.Generator,
    network: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Latents before each evaluation, and at the end the picture."""
    while not one.done:
        yield latents
        prediction = (network or target.predict)(one.model_input(latents), one.timestep.reshape(1), {})
        latents = one.step(prediction, latents, generator)
    yield latents
