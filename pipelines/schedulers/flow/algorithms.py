"""Deterministic samplers for a rectified flow, as functions that ask for one network evaluation at a time.

Along a rectified flow latents are x = (1 - sigma) picture + sigma noise, and the network predicts the
velocity noise - picture. The flow is the equation dx / dsigma = velocity = (x - picture) / sigma: letter
for letter the one that Karras et al. 2022 solve for alpha = 1, so that solvers written for it hold here as
they stand, in the flow's own level. The velocity is smooth at both ends; only logarithms of the level need
a limit, at 0.

Every function is an `Algorithm`: it yields the latents and the level that it wants evaluated, the given
ones first, gets a `Prediction` back and returns the finished latents. Levels fall strictly to 0; they are
floats, so nothing waits for a device.
"""

# Why: pipelines/decisions/0004.

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from torch import Tensor

from pipelines.schedulers.ipndm import COEFFICIENTS


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of the network for latents at a level.

    Attributes:
        velocity: noise minus picture, with guidance.
        unguided: the velocity without the prompt; the same where nothing guides.
    """

    velocity: Tensor
    unguided: Tensor


Noise: TypeAlias = Callable[[], Tensor]
"""Draws standard normal noise of the latents' shape."""

Evaluations: TypeAlias = Generator[tuple[Tensor, float], Prediction, Tensor]
"""Asks for predictions of latents at levels, one after the other, and returns the finished latents."""

Algorithm: TypeAlias = Callable[[Tensor, Sequence[float], Noise], Evaluations]
"""Starts the evaluations for (latents at the first level, levels falling to 0, noise)."""


def ddim(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """DDIM without noise (Song et al. 2021, "Denoising diffusion implicit models", equation 12, sigma_t = 0).

    The predicted picture and the predicted noise are mixed anew for the next level. Order 1. As the weights
    of a flow add up to 1, what comes out is the Euler step; the two differ in rounding only.
    """
    for level, following in pairwise(levels):
        velocity = (yield x, level).velocity
        picture, direction = x - level * velocity, x + (1 - level) * velocity
        x = (1 - following) * picture + following * direction
    return x


def euler_pp(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """CFG++ (Chung et al. 2024, "CFG++: Manifold-constrained classifier free guidance", algorithm 2).

    The guided picture is noised again with the noise that the network sees *without* the prompt. Order 1;
    without guidance it is the Euler step.
    """
    for level, following in pairwise(levels):
        prediction = yield x, level
        picture = x - level * prediction.velocity
        direction = x + (1 - level) * prediction.unguided
        x = (1 - following) * picture + following * direction
    return x


def heunpp2(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Heun++ of Carzit (sd-webui-samplers-scheduler; there is no paper): three slopes a step, two in the last
    but one, one in the last.

    The further slopes, found by Euler steps to the next two levels, weigh as much as their level is of the
    first one: at the start they pull the step ahead, towards the end it becomes Euler's. That is order 1,
    with the error changing its sign on the way.
    """
    for index, (level, following) in enumerate(pairwise(levels)):
        ahead = [seen for seen in levels[index + 1 : index + 3] if seen > 0]
        slope = first = (yield x, level).velocity
        there, at, last = x, level, first
        for further in ahead:
            there, at = there + (further - at) * last, further
            last = (yield there, at).velocity
            slope = slope + further / ((len(ahead) + 1) * levels[0]) * (last - first)
        x = x + (following - level) * slope
    return x


def dpm_2(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """DPM-Solver-2 (Lu et al. 2022, "DPM-Solver", algorithm 1) in k-diffusion's form, steps in the level.

    A step takes the slope at the geometric mean of its two levels. Order 2; the step to 0, which has no such
    middle, is Euler's.
    """
    for level, following in pairwise(levels):
        velocity = (yield x, level).velocity
        if following > 0:
            middle = math.sqrt(level * following)
            velocity = (yield x + (middle - level) * velocity, middle).velocity
        x = x + (following - level) * velocity
    return x


def _adams_bashforth(before: Sequence[float], following: float) -> list[float]:
    """The weights of the slopes at the levels ``before``, newest last, for a step on to ``following``.

    The polynomial through the slopes is integrated exactly: one Lagrange polynomial per weight, in units of
    the step, so that numbers stay near 1.
    """
    newest, step = before[-1], following - before[-1]
    places = [(level - newest) / step for level in before]
    weights: list[float] = []
    for place in places:
        coefficients = [1.0]
        for other in places:
            if other != place:
                raised = zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
                coefficients = [(lower - other * same) / (place - other) for lower, same in raised]
        weights.append(step * sum(factor / (power + 1) for power, factor in enumerate(coefficients)))
    return weights


def _multistep(x: Tensor, levels: Sequence[float]) -> Evaluations:
    """Step from level to level, each time by the slopes of the last four."""
    slopes: list[Tensor] = []
    for index, following in enumerate(levels[1:]):
        slopes = [*slopes[-3:], (yield x, levels[index]).velocity]
        weights = _adams_bashforth(levels[index + 1 - len(slopes) : index + 1], following)
        for weight, slope in zip(weights, slopes, strict=True):
            x = x + weight * slope
    return x


def lms(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Linear multistep of order 4 (Adams-Bashforth on uneven levels; Hairer, Norsett, Wanner 1993, III.5), as
    k-diffusion's LMS takes it: Lagrange polynomials through the last four slopes, here integrated exactly.

    The first three steps have the lower orders 1, 2, 3.
    """
    return (yield from _multistep(x, levels))


def ipndm_v(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """iPNDM (see `ipndm`) with the weights of variable steps, as diff-sampler has it.

    Order 4, started as `lms` is. Those weights are the integrals of the same polynomials, so the steps are
    those of `lms`, but for the last: that goes straight to the predicted picture.
    """
    *inner, last = levels
    x = yield from _multistep(x, inner)
    velocity = (yield x, inner[-1]).velocity
    return x + (last - inner[-1]) * velocity


_EVEN_WEIGHTS = tuple(weights[::-1] for weights in COEFFICIENTS)
"""The Adams-Bashforth weights of even steps for orders 1 to 4, newest slope last."""


def ipndm(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """iPNDM (Zhang and Chen 2022, "Fast sampling of diffusion models with exponential integrator": the linear
    multistep of Liu et al. 2022, "Pseudo numerical methods for diffusion models", equation 12, started
    without Runge-Kutta): weights of even steps, whatever the levels are; the last step goes to the
    predicted picture.

    Order 4 on even levels once four slopes are there; on uneven ones, and because of its start with a single
    slope, 2 over the whole way.
    """
    slopes: list[Tensor] = []
    for level, following in pairwise(levels):
        slopes = [*slopes[-3:], (yield x, level).velocity]
        if following == 0:
            return x - level * slopes[-1]
        for weight, slope in zip(_EVEN_WEIGHTS[len(slopes) - 1], slopes, strict=True):
            x = x + (following - level) * weight * slope
    return x
