"""PNDMScheduler for checkpoints that predict something else than their noise, and for pictures that are sent.

diffusers extrapolates what the network says, whatever that is. Only the noise may be: the meaning of v and of
the picture changes with the time, and mixing those of several times leaves a method of first order.

Its first two evaluations make one step together, wherever the drawing begins. diffusers repeats a time for
them at the beginning of the whole schedule only: from the middle it makes one step too few, and what that
step would have taken away stays in the picture as noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import diffusers
import torch
from torch import Tensor

from pipelines.schedulers.predictions import to_sample_and_noise


class PNDM(diffusers.PNDMScheduler):
    """diffusers' own scheduler, which is given the noise (Liu et al. 2022, algorithm 2).

    Its configuration says "epsilon".

    Attributes:
        predicted: the prediction type of the network.
    """

    predicted: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        made: Any = super().from_config({**config, "prediction_type": "epsilon"}, **changes)
        made.predicted = config.get("prediction_type", "epsilon")
        return made

    def set_begin_index(self, begin_index: int) -> None:
        """Start at the step of that index, with the linear multistep method from its first step on."""
        if begin_index == 0:
            return
        # Runge-Kutta steps read their times by their own count from the beginning of the schedule.
        self.register_to_config(skip_prk_steps=True)
        self.set_timesteps(self.num_inference_steps or 0)
        steps = self.timesteps.unique().flip(0)
        self.timesteps = torch.cat([steps[: begin_index + 2], steps[begin_index + 1 :]])

    def step(
        self, prediction: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        time = int(timestep)
        _, noise = to_sample_and_noise(self.predicted, prediction, latents, self.alphas_cumprod[time])
        stepped: Any = super().step(noise, time, latents, return_dict=False)
        return (stepped[0].to(prediction.dtype),)
