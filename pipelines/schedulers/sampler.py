"""Noise schedulers by their documented names, and the sampler that draws one sample with one of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor

from pipelines.denoising.sampler import Steps
from pipelines.errors import InvalidInput
from pipelines.request import SchedulerChoice
from pipelines.schedulers.ipndm import IPNDM
from pipelines.schedulers.karras_ve import KarrasVe
from pipelines.schedulers.lms import LMS
from pipelines.schedulers.names import ALGORITHM_TYPES, NAMES, WITH_KARRAS_SIGMAS
from pipelines.schedulers.pndm import PNDM
from pipelines.schedulers.score_sde import ScoreSdeVe

# Why: pipelines/decisions/0003.
OWN: Mapping[str, Any] = {
    "DDIMInverseScheduler": diffusers.DDIMScheduler,
    "IPNDMScheduler": IPNDM,
    "KarrasVeScheduler": KarrasVe,
    "ScoreSdeVeScheduler": ScoreSdeVe,
}
"""The classes for names whose class in diffusers does not draw from noise with a latent network."""

MENDED: Mapping[str, Any] = {"LMSDiscreteScheduler": LMS, "PNDMScheduler": PNDM}
"""Replacements for diffusers' classes that are wrong for some checkpoints or in the middle of their schedule.
Where diffusers is right, the bytes are the same."""


def make_scheduler(choice: SchedulerChoice, config: Mapping[str, Any]) -> Any:
    """A new noise scheduler as ``choice`` says, on the noise schedule of a checkpoint.

    Args:
        choice: options that the scheduler does not have are left out.
        config: configuration of the checkpoint's own scheduler, of whatever class.
    Raises:
        InvalidInput: no such scheduler, or it does not know the algorithm type.
    """
    name = choice.name or config["_class_name"]
    if name not in NAMES:
        raise InvalidInput("scheduler", f"{name} is not one of {', '.join(NAMES)}")
    # Pictures in latent space know no bounds: a checkpoint that does not ask for clipping gets none.
    config = {"clip_sample": False, **config}
    changes: dict[str, Any] = {}
    if choice.use_karras_sigmas is not None and name in WITH_KARRAS_SIGMAS:
        changes["use_karras_sigmas"] = choice.use_karras_sigmas
        if choice.use_karras_sigmas:
            changes |= dict.fromkeys(_other_spacings(name), False)
    if choice.algorithm_type is not None and name in ALGORITHM_TYPES:
        changes |= _algorithm(name, choice.algorithm_type)
    if name == "PNDMScheduler" and "skip_prk_steps" not in config:
        # Runge-Kutta steps first cannot start in the middle of the schedule, as image to image does.
        changes["skip_prk_steps"] = True
    if name == "UniPCMultistepScheduler":
        # At its own order the step to no noise at all divides by zero; a configuration that another scheduler
        # left may ask for that.
        changes["lower_order_final"] = True
    made_of = OWN.get(name) or MENDED.get(name) or getattr(diffusers, name)
    return made_of.from_config(config, **changes)


def _other_spacings(name: str) -> set[str]:
    """The options that exclude Karras sigmas; a checkpoint's configuration may have one of them on."""
    return set(inspect.signature(getattr(diffusers, name).__init__).parameters) & {
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_flow_sigmas",
        "use_lu_lambdas",
    }


def _algorithm(name: str, algorithm_type: str) -> dict[str, Any]:
    known = ALGORITHM_TYPES[name]
    if algorithm_type not in known:
        raise InvalidInput("algorithm_type", f"{algorithm_type} is not one of {', '.join(known)} for {name}")
    # Only the ++ algorithms are defined at a last noise level of zero.
    final = {} if algorithm_type.endswith("++") else {"final_sigmas_type": "sigma_min"}
    return {"algorithm_type": algorithm_type, **final}


class DiffusersSampler(Steps):
    """A diffusers noise scheduler in the middle of drawing one sample.

    It owns the scheduler object, whose counters move with each step.

    Args:
        num_inference_steps: the steps of the whole schedule; schedulers of second order evaluate about
            twice a step.
        device: where the network is.
        skip: steps left out at the start (image to image).
    Raises:
        InvalidInput: the scheduler cannot do that many steps.
    """

    def __init__(
        self, scheduler: Any, num_inference_steps: int, device: torch.device, *, skip: int = 0
    ) -> None:
        # On the CPU: schedulers index their tables by time, and on a GPU each step would wait for the device.
        try:
            scheduler.set_timesteps(num_inference_steps, device="cpu")
        except ValueError as error:
            raise InvalidInput(
                "num_inference_steps", f"{type(scheduler).__name__} cannot do {num_inference_steps} steps"
            ) from error
        self._begin = skip * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(self._begin)
        self._scheduler = scheduler
        self._scheduler_times: Tensor = scheduler.timesteps[self._begin :]
        super().__init__(self._scheduler_times.to(device))
        accepted = inspect.signature(scheduler.step).parameters
        self._extra: dict[str, Any] = {"eta": 0.0} if "eta" in accepted else {}
        self._takes_generator = "generator" in accepted

    def from_noise(self, noise: Tensor) -> Tensor:
        """The first latents, of pure noise."""
        return noise * self._scheduler.init_noise_sigma

    def from_latents(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The latents of a picture with as much noise as the next evaluation expects.

        Image to image begins with them. Inpainting puts them in the place of the kept part after each step.
        """
        return self._scheduler.add_noise(latents, noise, self._scheduler_times[self._position :][:1])

    def model_input(self, latents: Tensor) -> Tensor:
        return self._scheduler.scale_model_input(latents, self._scheduler_times[self._position])

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        extra = {**self._extra, "generator": generator} if self._takes_generator else self._extra
        time = self._scheduler_times[self._position]
        self._position += 1
        return self._scheduler.step(prediction, time, latents, **extra, return_dict=False)[0]
