"""ScoreSdeVeScheduler: the predictor-corrector sampler of Song et al. 2021 for the variance-exploding SDE."""

from __future__ import annotations

import math

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.schedulers.variance_exploding import VarianceExploding, at_least_float32

SIGNAL_TO_NOISE = 0.15
"""The signal-to-noise ratio r of algorithm 4: the size of a Langevin step's move over that of its noise;
diffusers' value."""


class ScoreSdeVe(VarianceExploding):
    """Takes one corrector step (annealed Langevin dynamics, algorithm 4) at each noise level, then the
    predictor's step to the next level.

    The predictor is the paper's ancestral sampling (equation 47). The reverse diffusion of its algorithm 2
    agrees with it in the limit of many steps; with fifty it leaves the latents noisier than the network
    believes. The last step goes to no noise at all: it returns the picture that the network expects.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        """Visit a geometric sequence of noise levels, each twice."""
        largest, smallest = self._levels.largest, self._levels.smallest
        ratio = (smallest / largest) ** (1 / max(1, num_inference_steps - 1))
        self._visit([largest * ratio ** (index // 2) for index in range(2 * num_inference_steps)])

    def step(
        self,
        prediction: Tensor,
        timestep: Tensor,
        latents: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        latents = at_least_float32(latents)
        sigma = self._sigmas[self._position]
        score = (self._levels.denoised(at_least_float32(prediction), latents, sigma) - latents) / sigma**2
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
        self._position += 1
        if self._position % 2 == 1:
            moved = _corrected(latents, score, noise)
        else:
            ahead = self._sigmas[self._position] if self._position < len(self._sigmas) else 0.0
            drop = sigma**2 - ahead**2
            moved = latents + drop * score + ahead / sigma * math.sqrt(drop) * noise
        return (moved.to(prediction.dtype),)


def _corrected(latents: Tensor, score: Tensor, noise: Tensor) -> Tensor:
    """The latents after one step of algorithm 4: towards the data, with as much noise as keeps the level."""
    size = 2 * (SIGNAL_TO_NOISE * noise.norm() / score.norm()) ** 2
    return latents + size * score + (2 * size).sqrt() * noise
