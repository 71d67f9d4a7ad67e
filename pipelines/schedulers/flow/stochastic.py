"""Stochastic samplers for a rectified flow; see `pipelines.schedulers.flow.algorithms`.

They follow, for alpha = 1 - sigma, the reverse of the process that noises a picture. Its half-log-SNR is
lambda = log(alpha / sigma): infinite at both ends, so formulas are written in exp(-h), h the step in lambda,
which is 0 after the step from level 1, whose outcome does not depend on the noise it starts from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from pipelines.schedulers.flow.algorithms import Evaluations, Noise
from pipelines.schedulers.flow.sigmas import half_log_snr

LONGEST_LINE, LONGEST_CURVE = 1.5, 1.1
"""The longest steps in lambda, in lengths of the step before, that `dpmpp_3m_sde` extrapolates by a line and
by a curve."""


def _remaining(level: float, following: float) -> float:
    """The noise-to-signal ratio of ``following`` as a part of that of ``level``: exp(-h), 0 from level 1."""
    return following * (1 - level) / (level * (1 - following))


def _reversed(x: Tensor, picture: Tensor, level: float, following: float, normal: Tensor | None) -> Tensor:
    """The latents at ``following``, given those at ``level`` and the picture (Ho et al. 2020, equation 6).

    For x = alpha picture + sigma noise the posterior has the mean
    (sigma' / sigma) exp(-h) x + alpha' (1 - exp(-2h)) picture and the variance sigma'^2 (1 - exp(-2h)).

    Args:
        normal: standard normal noise; None where the variance is 0.
    """
    kept = _remaining(level, following)
    mean = following / level * kept * x + (1 - following) * (1 - kept**2) * picture
    return mean if normal is None else mean + following * math.sqrt(1 - kept**2) * normal


def ddpm(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Ancestral sampling (Ho et al. 2020, "Denoising diffusion probabilistic models", algorithm 2, with the
    smaller of its two variances), for the weights of a flow. Weak order 1.
    """
    for level, following in pairwise(levels):
        picture = x - level * (yield x, level).velocity
        x = _reversed(x, picture, level, following, noise() if following > 0 else None)
    return x


def _below(level: float, following: float) -> float:
    """The level to which an ancestral step goes before it is noised again: twice as far, for small steps."""
    return following**2 / level


def _renoised(x: Tensor, below: float, level: float, noise: Noise) -> Tensor:
    """The latents noised from ``below`` up to ``level``: the picture has the weight 1 - level there.

    Scaled by a = (1 - level) / (1 - below) the latents have the noise a below, and variances add up.
    """
    if level == 0:
        return x
    scale = (1 - level) / (1 - below)
    return scale * x + math.sqrt(level**2 - (scale * below) ** 2) * noise()


def euler_ancestral(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Ancestral sampling with Euler steps (k-diffusion; Song et al. 2021, "Score-based generative modeling",
    appendix F), for a flow: down to sigma'^2 / sigma without noise, then noised up to sigma'. Weak order 1.
    """
    for level, following in pairwise(levels):
        below = _below(level, following)
        velocity = (yield x, level).velocity
        x = _renoised(x + (below - level) * velocity, below, following, noise)
    return x


def euler_ancestral_pp(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """`euler_ancestral` with the direction of CFG++ (Chung et al. 2024, "CFG++", algorithm 2).

    That is the guided picture, and the noise that the network sees without the prompt. Weak order 1.
    """
    for level, following in pairwise(levels):
        below = _below(level, following)
        prediction = yield x, level
        picture = x - level * prediction.velocity
        direction = x + (1 - level) * prediction.unguided
        x = _renoised((1 - below) * picture + below * direction, below, following, noise)
    return x


def dpm_2_ancestral(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Ancestral sampling whose way down is a step of `dpm_2` (Lu et al. 2022, "DPM-Solver", algorithm 1).

    Weak order 2, that of the way down: an exact one would keep the distribution, as noising does.
    """
    for level, following in pairwise(levels):
        below = _below(level, following)
        velocity = (yield x, level).velocity
        if below > 0:
            middle = math.sqrt(level * below)
            velocity = (yield x + (middle - level) * velocity, middle).velocity
        x = _renoised(x + (below - level) * velocity, below, following, noise)
    return x


def _halfway(level: float, following: float) -> float:
    """The level in the middle of the half-log-SNRs: its ratio of noise to signal is their geometric mean."""
    ratio = math.sqrt(level * following / ((1 - level) * (1 - following)))
    return ratio / (1 + ratio)


def _one_evaluation(level: float, following: float) -> bool:
    """Whether one end of the step is infinite in half-log-SNR, which leaves it without a middle."""
    return level == 1 or following == 0


def dpmpp_2s_ancestral(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Ancestral sampling whose way down is DPM-Solver++(2S) (Lu et al. 2022, "DPM-Solver++", algorithm 1,
    r = 1/2): the picture seen in the middle of the step.

    From level 1, and to 0, the middle is at the end and the step is of first order. Weak order 2.
    """
    for level, following in pairwise(levels):
        below = _below(level, following)
        picture = x - level * (yield x, level).velocity
        if not _one_evaluation(level, following):
            middle = _halfway(level, below)
            there = middle / level * x + (1 - middle / level) * picture
            picture = there - middle * (yield there, middle).velocity
        x = _renoised(below / level * x + (1 - below / level) * picture, below, following, noise)
    return x


def dpmpp_sde(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Stochastic DPM-Solver++ of second order, single step (Lu et al. 2022, "DPM-Solver++", algorithm 1 with
    r = 1/2, in the stochastic form of its appendix; known from k-diffusion as DPM++ SDE).

    The noise of half a step and of the whole one belong to one Brownian path. Steps from 1 and to 0 are of
    first order, as in `dpmpp_2s_ancestral`. Weak order 2.
    """
    for level, following in pairwise(levels):
        picture = x - level * (yield x, level).velocity
        normal = noise() if following > 0 else None
        if normal is not None and not _one_evaluation(level, following):
            middle = _halfway(level, following)
            there = _reversed(x, picture, level, middle, normal)
            picture = there - middle * (yield there, middle).velocity
            normal = _joined(normal, noise(), _remaining(level, following))
        x = _reversed(x, picture, level, following, normal)
    return x


def _joined(first: Tensor, second: Tensor, kept: float) -> Tensor:
    """The standard normal of a whole step, made of those of its two halves in lambda.

    The noise of the exact solution, divided by the square of the ratio of noise to signal, is a Brownian path
    whose clock is the SNR, exp(2 lambda): its halves last 1 / kept - 1 and 1 / kept^2 - 1 / kept.
    """
    share = kept / (1 + kept)
    return math.sqrt(share) * first + math.sqrt(1 - share) * second


def dpmpp_3m_sde(x: Tensor, levels: Sequence[float], noise: Noise) -> Evaluations:
    """Stochastic DPM-Solver++ of third order, multistep (Lu et al. 2022, "DPM-Solver++", algorithm 2 carried
    on by one order, in the stochastic form of its appendix; known from k-diffusion as DPM++ 3M SDE).

    The predicted picture is a polynomial in lambda through the last three; its integral against the
    exponential is exact, where k-diffusion counts the quadratic part half. A step more than `LONGEST_CURVE`
    times as long as the one before takes it as a line, one more than `LONGEST_LINE` times as long as
    constant: schedules whose last steps grow (beta) or jump (normal, ddim_uniform) would otherwise blow
    differences up to noise.
    """
    known: list[tuple[float, Tensor]] = []
    for level, following in pairwise(levels):
        picture = x - level * (yield x, level).velocity
        if following == 0:
            return picture
        normal = noise()
        x = _reversed(x, picture, level, following, normal)
        if level < 1:
            known = [*known[-2:], (half_log_snr(level), picture)]
            x = x + (1 - following) * _bend(known, half_log_snr(following))
    return x


def _bend(known: Sequence[tuple[float, Tensor]], following: float) -> Tensor | float:
    """The part of a step by which a picture that is a polynomial in lambda differs from a constant one.

    Args:
        known: lambda and predicted picture of up to three levels, the newest last.
        following: lambda at the end of the step.
    """
    if len(known) == 1 or following - known[-1][0] > LONGEST_LINE * (known[-1][0] - known[-2][0]):
        return 0.0
    (now, newest), (earlier, older) = known[-1], known[-2]
    step = following - now
    slope = (newest - older) / (now - earlier)
    # Integrals of 2 exp(-2 (step - u)) u and of the same with u^2, over the step.
    linear = step + math.expm1(-2 * step) / 2
    quadratic = step**2 - linear
    if len(known) == 2 or step > LONGEST_CURVE * (now - earlier):
        return linear * slope
    earliest, oldest = known[-3]
    curve = (slope - (older - oldest) / (earlier - earliest)) / (now - earliest)
    return linear * (slope + (now - earlier) * curve) + quadratic * curve
