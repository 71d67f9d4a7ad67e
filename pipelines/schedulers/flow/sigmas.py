"""Sigma schedules for SD3's flow matching, as ComfyUI defines them: the noise levels that are visited."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from pipelines.errors import InvalidInput

T = TypeVar("T", float, np.ndarray)

SHIFT = 3.0
"""The factor by which SD3 moves its noise levels towards noise (Esser et al. 2024, section 5.3.2)."""

TRAIN_TIMESTEPS = 1000
"""The number of timesteps in SD3's training; the network's time is a noise level times this."""

LONGEST_EXTRAPOLATION = 2.0
"""The longest step in half-log-SNR, in lengths of the last one, that multistep methods extrapolate here."""


def shifted(time: T) -> T:
    """The noise level of an unshifted time in 0..1."""
    return SHIFT * time / (1 + (SHIFT - 1) * time)


def half_log_snr(level: float) -> float:
    """Half of the logarithm of the signal-to-noise ratio: infinite at levels 1 and 0."""
    return math.log((1 - level) / level)


def is_far(before: float, level: float, following: float) -> bool:
    """Whether a step is too long to be extrapolated to from the one before it.

    "normal" and "ddim_uniform" jump to their lowest level at the end. What the last two predicted pictures
    differ in, some noise among it, would be blown up by as much. An infinite step is not far from another.
    """
    if before == 1 or following == 0:
        return False
    start = half_log_snr(level)
    return half_log_snr(following) - start > LONGEST_EXTRAPOLATION * (start - half_log_snr(before))


_TABLE = shifted(np.arange(1, TRAIN_TIMESTEPS + 1) / TRAIN_TIMESTEPS)
"""The noise level of each training timestep, ascending; the last one is 1."""

_LOWEST, _HIGHEST = float(_TABLE[0]), float(_TABLE[-1])


def _normal(steps: int) -> np.ndarray:
    """Evenly spaced times, the first and the last one included.

    They run down to the lowest *level*, which is shifted once more: ComfyUI takes a flow's level for a time.
    """
    return shifted(np.linspace(_HIGHEST, _LOWEST, steps))


def _sgm_uniform(steps: int) -> np.ndarray:
    """`_normal` with one step more, whose lowest level is left out."""
    return _normal(steps + 1)[:-1]


def _karras(steps: int) -> np.ndarray:
    """Karras et al. 2022, equation 5, rho = 7."""
    root = np.linspace(_HIGHEST ** (1 / 7), _LOWEST ** (1 / 7), steps)
    return root**7


def _exponential(steps: int) -> np.ndarray:
    """Evenly spaced logarithms."""
    return np.exp(np.linspace(math.log(_HIGHEST), math.log(_LOWEST), steps))


def _simple(steps: int) -> np.ndarray:
    """Evenly spaced entries of the table from the highest downwards, positions rounded down."""
    stride = TRAIN_TIMESTEPS / steps
    return np.array([_TABLE[-1 - int(index * stride)] for index in range(steps)])


def _ddim_uniform(steps: int) -> np.ndarray:
    """Every ``TRAIN_TIMESTEPS // steps``-th entry of the table from the second upwards, reversed.

    The highest level is below 1, and where ``steps`` does not divide the table there are more levels.
    """
    return _TABLE[1 :: max(TRAIN_TIMESTEPS // steps, 1)][::-1]


def _beta(steps: int) -> np.ndarray:
    """Quantiles of the beta distribution (0.6, 0.6) over the table (Lee et al. 2024, arXiv 2407.12173).

    Neighbours that round to the same entry count once; that does not happen up to 100 steps.
    """
    quantiles = betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, steps, endpoint=False))
    entries = np.rint(quantiles * (TRAIN_TIMESTEPS - 1)).astype(int)
    return _TABLE[list(dict.fromkeys(entries.tolist()))]


_SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
    "normal": _normal,
    "karras": _karras,
    "exponential": _exponential,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
}
SIGMA_SCHEDULES = tuple(_SCHEDULES)


def sigmas(schedule: str, steps: int) -> Tensor:
    """The noise levels of a schedule: float32 on the CPU, strictly descending, the last one 0.

    Nearly always ``steps + 1`` of them; ``ddim_uniform`` may have more.

    Raises:
        InvalidInput: there is no schedule of this name.
    """
    if schedule not in _SCHEDULES:
        raise InvalidInput("scheduler", f"{schedule} is not one of {', '.join(SIGMA_SCHEDULES)}")
    return torch.tensor([*_SCHEDULES[schedule](steps).tolist(), 0.0], dtype=torch.float32)
