"""KarrasVeScheduler: the stochastic sampler of Karras et al. 2022, algorithm 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.schedulers.variance_exploding import VarianceExploding, at_least_float32

CHURN = 80.0
CHURNED_FROM, CHURNED_TO = 0.05, 50.0
NOISE_INFLATION = 1.007
"""S_churn, S_tmin, S_tmax and S_noise of algorithm 2, as diffusers' class of this name has them."""

LARGEST_INCREASE = math.sqrt(2) - 1
"""The largest relative increase of a noise level, gamma of algorithm 2."""


def karras_sigmas(largest: float, smallest: float, steps: int, rho: float = 7.0) -> list[float]:
    """The noise levels of equation 5, from the largest down to the smallest, without the zero at the end."""
    top, bottom = largest ** (1 / rho), smallest ** (1 / rho)
    return [(top + index / max(1, steps - 1) * (bottom - top)) ** rho for index in range(steps)]


class KarrasVe(VarianceExploding):
    """Heun's method of second order that puts some fresh noise back before each step.

    Algorithm 2 adds the noise at the beginning of a step; here it is added at the end of the one before, so
    that the network sees the noisier latents. The increase stops at the largest noise level that the
    checkpoint was trained on, hence the first step has none.

    Args:
        churn: 0 makes it algorithm 1, which is deterministic.
    """

    def __init__(
        self, config: Mapping[str, Any], churn: float = CHURN, noise_inflation: float = NOISE_INFLATION
    ) -> None:
        super().__init__(config)
        self._churn = churn
        self._noise_inflation = noise_inflation
        self._start: tuple[Tensor, Tensor] | None = None

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        """Visit the noise levels t_0, t_1 .. t_N-1, 0, each but the last two raised first, then as it is."""
        levels = self._levels
        plain = karras_sigmas(levels.largest, levels.smallest, num_inference_steps)
        increase = min(self._churn / num_inference_steps, LARGEST_INCREASE)
        raised = [
            min(sigma * (1 + increase), levels.largest) if CHURNED_FROM <= sigma <= CHURNED_TO else sigma
            for sigma in plain
        ]
        pairs = [level for pair in zip(raised, plain[1:], strict=False) for level in pair]
        self._visit([*pairs, raised[-1]])

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
        slope = (latents - self._levels.denoised(at_least_float32(prediction), latents, sigma)) / sigma
        ahead = self._sigmas[self._position + 1] if self._position + 1 < len(self._sigmas) else 0.0
        if self._position % 2 == 0:
            self._start = (latents, slope)
            moved = latents + (ahead - sigma) * slope
        else:
            assert self._start is not None
            start, first_slope = self._start
            moved = start + (sigma - self._sigmas[self._position - 1]) * (first_slope + slope) / 2
            if ahead > sigma:
                noise = randn_tensor(moved.shape, generator=generator, device=moved.device, dtype=moved.dtype)
                moved = moved + self._noise_inflation * math.sqrt(ahead**2 - sigma**2) * noise
        self._position += 1
        return (moved.to(prediction.dtype),)
