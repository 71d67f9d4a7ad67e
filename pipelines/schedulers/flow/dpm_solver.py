"""DPM-Solver of Lu et al. 2022 on a rectified flow: dpm_fast and dpm_adaptive.

With dx / dsigma = velocity, the solver's exponential integrals run over t = -log(level), which is 0 at pure
noise, and the velocity takes the place of the predicted noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.schedulers.flow.algorithms import Evaluations, Noise

RELATIVE_TOLERANCE = 0.05
ABSOLUTE_TOLERANCE = 0.0078
FIRST_STEP = 0.05
SAFETY = 0.9
"""The tolerances, the first step in t and the safety factor of the paper's appendix C. The absolute
tolerance, 2 / 256 of a picture's range, counts for latents alike."""
SMALLEST_STEP = 0.02
"""The step in t that is accepted whatever its error: a network may not keep the solver for ever."""


def _first(x: Tensor, t: float, step: float, slope: Tensor) -> Tensor:
    """DPM-Solver-1 over ``step``: Euler's step in the level."""
    return x - math.exp(-t - step) * math.expm1(step) * slope


def _second(x: Tensor, t: float, step: float, part: float, slope: Tensor, later: Tensor) -> Tensor:
    """DPM-Solver-2 (algorithm 1, r_1 = ``part``); ``later`` is the slope at that part of the step."""
    change = math.exp(-t - step) * math.expm1(step) / 2 / part
    return _first(x, t, step, slope) - change * (later - slope)


def _bent(x: Tensor, t: float, step: float, part: float, slope: Tensor, later: Tensor) -> Tensor:
    """A step with a slope that is linear in t and integrated exactly: both stages of DPM-Solver-3."""
    change = math.exp(-t - step) * (math.expm1(step) / step - 1) / part
    return _first(x, t, step, slope) - change * (later - slope)


def _asked(x: Tensor, t: float) -> Evaluations:
    """Ask for the slope at t."""
    return (yield x, math.exp(-t)).velocity


def _third(x: Tensor, t: float, step: float, slope: Tensor, third: Tensor) -> Evaluations:
    """DPM-Solver-3 (algorithm 2, r_1 = 1/3, r_2 = 2/3), given the slope at a third of the step."""
    reach = step * 2 / 3
    two_thirds = yield from _asked(_bent(x, t, reach, 1 / 2, slope, third), t + reach)
    return _bent(x, t, step, 2 / 3, slope, two_thirds)


def orders(evaluations: int) -> list[int]:
    """The orders of DPM-Solver-fast's steps for a number of evaluations (Lu et al. 2022, section 3.4)."""
    threes, rest = divmod(evaluations, 3)
    if rest == 0:
        return [3] * (threes - 1) + [2, 1] if threes else []
    return [3] * threes + [rest]


def dpm_fast(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """DPM-Solver-fast (Lu et al. 2022, "DPM-Solver", section 3.4): as many evaluations as there are steps.

    Three steps of the schedule at a time become one of order 3; the remainder is of order 2 and 1, and so
    is the step to 0, where t is infinite. Order 3. A step begins and ends on levels of the schedule, as in
    the authors' code; the levels of its inner evaluations are spaced evenly in t.
    """
    start = 0
    for order in orders(len(levels) - 2):
        t = -math.log(levels[start])
        step = -math.log(levels[start + order]) - t
        slope = yield from _asked(x, t)
        if order == 1:
            x = _first(x, t, step, slope)
        elif order == 2:
            middle = yield from _asked(_first(x, t, step / 2, slope), t + step / 2)
            x = _second(x, t, step, 1 / 2, slope, middle)
        else:
            third = yield from _asked(_first(x, t, step / 3, slope), t + step / 3)
            x = yield from _third(x, t, step, slope, third)
        start += order
    velocity = (yield x, levels[-2]).velocity
    return x - levels[-2] * velocity


def dpm_adaptive(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """DPM-Solver-23 with adaptive steps (Lu et al. 2022, "DPM-Solver", appendix C).

    It starts at the schedule's first level and goes to its last one above 0, on levels of its own: a step
    is taken when orders 2 and 3 agree within the tolerance, else tried again, shorter. Three evaluations
    per step taken, two per further attempt, one for the step to 0. The agreement is read from the device.
    """
    t, end, step = -math.log(levels[0]), -math.log(levels[-2]), FIRST_STEP
    before, slope = x, None
    while end - t > 1e-9:
        step = min(max(step, SMALLEST_STEP), end - t)
        if slope is None:
            slope = yield from _asked(x, t)
        third = yield from _asked(_first(x, t, step / 3, slope), t + step / 3)
        lower = _second(x, t, step, 1 / 3, slope, third)
        higher = yield from _third(x, t, step, slope, third)
        error = _disagreement(lower, higher, before)
        if not error > 1 or step <= SMALLEST_STEP:
            t, before, x, slope = t + step, lower, higher, None
        step *= SAFETY * min(max(error, 1e-3), 1e3) ** (-1 / 3) if error == error else 1.0
    velocity = (yield x, levels[-2]).velocity
    return x - levels[-2] * velocity


def _disagreement(lower: Tensor, higher: Tensor, before: Tensor) -> float:
    """The root mean square of the difference in units of the tolerance; at most 1 is good enough."""
    tolerance = torch.maximum(lower.abs(), before.abs()).mul(RELATIVE_TOLERANCE).clamp(min=ABSOLUTE_TOLERANCE)
    return float(((lower - higher) / tolerance).square().mean().sqrt())
