"""Noise schedulers that move through the bare noise levels of a checkpoint's noise schedule.

They see latents as picture + sigma * noise, whatever the noise schedule did to the picture's scale: the
variance-exploding form of Song et al. 2021, and the only one of Karras et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import diffusers
import numpy as np
import torch
from torch import Tensor

_LEAST_SIGNAL = 2.0**-24
"""The least squared alpha: a schedule that ends in nothing but noise would have an infinite last sigma."""


class NoiseLevels:
    """The noise levels that a checkpoint was trained on, and the meaning of its predictions at one.

    Args:
        config: configuration of the checkpoint's own scheduler, of whatever class.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        schedule: Any = diffusers.DDIMScheduler.from_config(dict(config))
        signal = schedule.alphas_cumprod.double().clamp(min=_LEAST_SIGNAL).numpy()
        self._logarithms = np.log((1 - signal) / signal) / 2
        self._prediction_type: str = schedule.config.prediction_type

    @property
    def smallest(self) -> float:
        return math.exp(self._logarithms[0])

    @property
    def largest(self) -> float:
        return math.exp(self._logarithms[-1])

    def time_of(self, sigma: float) -> float:
        """The training time (0 .. trained steps - 1) of a noise level, interpolated in its logarithm."""
        return float(np.interp(math.log(sigma), self._logarithms, np.arange(len(self._logarithms))))

    def sigma_of(self, time: float) -> float:
        """The noise level of a training time, interpolated in its logarithm; undoes `time_of`."""
        return math.exp(float(np.interp(time, np.arange(len(self._logarithms)), self._logarithms)))

    def prediction(self, picture: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """What the network says that expects this picture and this noise; undoes `denoised`.

        Raises:
            NotImplementedError: see `denoised`.
        """
        match self._prediction_type:
            case "epsilon":
                return noise
            case "v_prediction":
                return (noise - sigma * picture) / math.sqrt(sigma**2 + 1)
            case "sample":
                return picture
            case other:
                raise NotImplementedError(other)

    def denoised(self, prediction: Tensor, latents: Tensor, sigma: float) -> Tensor:
        """The picture that the network expects under the noise.

        Raises:
            NotImplementedError: the checkpoint predicts something else than its noise, v or the picture.
        """
        match self._prediction_type:
            case "epsilon":
                return latents - sigma * prediction
            case "v_prediction":
                return latents / (sigma**2 + 1) - prediction * (sigma / math.sqrt(sigma**2 + 1))
            case "sample":
                return prediction
            case other:
                raise NotImplementedError(other)


class VarianceExploding:
    """A noise scheduler over bare noise levels, with diffusers' interface and two evaluations a step.

    Subclasses choose the noise level of each evaluation (`_visit`) and do the steps (``step``).
    """

    order = 2

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._levels = NoiseLevels(config)
        self._position = 0
        self._sigmas: Sequence[float] = ()
        self.timesteps = torch.empty(0)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config)

    @property
    def init_noise_sigma(self) -> float:
        """The scale of the first latents: inputs of the network have variance one at the last level too."""
        return math.sqrt(self._levels.largest**2 + 1)

    def set_begin_index(self, begin_index: int) -> None:
        """Start at the evaluation of that index."""
        self._position = begin_index

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The picture under the noise of the first evaluation."""
        return latents + self._sigmas[self._position] * noise

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents / math.sqrt(self._sigmas[self._position] ** 2 + 1)

    def _visit(self, sigmas: Sequence[float]) -> None:
        """Evaluate the network at these noise levels, one after the other."""
        self._sigmas = sigmas
        self._position = 0
        self.timesteps = torch.tensor([self._levels.time_of(sigma) for sigma in sigmas])


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in at least single precision: half precision loses differences of noise levels."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
