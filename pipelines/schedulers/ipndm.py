"""IPNDMScheduler: improved pseudo linear multistep, in the time and the noise schedule of the checkpoint.

diffusers' class of the name has a noise schedule of its own and times between 0 and 1: a network that was
trained on times 0 to 999 and other noise levels takes each of its steps for the very last.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import diffusers
from torch import Tensor

from pipelines.schedulers.predictions import to_sample_and_noise

COEFFICIENTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The Adams-Bashforth coefficients of order 1 to 4, for the newest prediction first."""


class IPNDM(diffusers.DDIMScheduler):
    """DDIM's transfer from one time to the next, with the noise that the last four predictions let expect.

    Liu et al. 2022 (PNDM), equations 11 and 12. "Improved" (Zhang and Chen 2023, iPNDM): the first steps use
    as many predictions as there are, where PNDM takes Runge-Kutta steps. Converges with order 2.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        super().set_timesteps(num_inference_steps, device=device or "cpu")
        self._noises: deque[Tensor] = deque(maxlen=len(COEFFICIENTS))

    def step(
        self, prediction: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        signal = self.alphas_cumprod[int(timestep)]
        config: Any = self.config
        picture, noise = to_sample_and_noise(config.prediction_type, prediction, latents, signal)
        self._noises.appendleft(noise)
        if len(self._noises) > 1:
            weights = COEFFICIENTS[len(self._noises) - 1]
            noise = sum(weight * each for weight, each in zip(weights, self._noises, strict=True))
            picture = (latents - (1 - signal).sqrt() * noise) / signal.sqrt()
        ahead = self._signal_after(timestep)
        return ((ahead.sqrt() * picture + (1 - ahead).sqrt() * noise).to(prediction.dtype),)

    def _signal_after(self, timestep: Tensor) -> Tensor:
        """The squared alpha of the next time, whatever the spacing."""
        later = self.timesteps[self.timesteps < timestep]
        return self.alphas_cumprod[int(later[0])] if len(later) else self.final_alpha_cumprod
