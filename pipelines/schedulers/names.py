"""The documented noise schedulers of epsilon- and v-prediction checkpoints, and which options each has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

NoiseScheduler = Literal[
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DDIMInverseScheduler",
    "DEISMultistepScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "ScoreSdeVeScheduler",
    "LCMScheduler",
]
"""The documented noise schedulers, by diffusers' class names."""

NAMES: tuple[str, ...] = get_args(NoiseScheduler)

WITH_KARRAS_SIGMAS = frozenset(
    {
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "DPMSolverSinglestepScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
    }
)
"""The schedulers whose noise levels ``use_karras_sigmas`` chooses; KarrasVeScheduler has no others."""

ALGORITHM_TYPES: Mapping[str, tuple[str, ...]] = {
    "DPMSolverMultistepScheduler": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
    "DPMSolverSinglestepScheduler": ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"),
}
"""The values of ``algorithm_type`` for each scheduler that has a choice."""

NOTES: Mapping[str, str] = {
    "DDIMInverseScheduler": "DDIM inversion leads from a picture to noise; used as a sampler it is "
    "deterministic DDIM, the same steps in the other direction",
    "KarrasVeScheduler": "stochastic sampler of Karras et al. 2022 (algorithm 2) over the checkpoint's noise "
    "levels; two network evaluations a step",
    "ScoreSdeVeScheduler": "predictor-corrector sampler of Song et al. 2021 for the variance-exploding SDE "
    "over the checkpoint's noise levels; two network evaluations a step",
}
"""The meaning of those names that are not plain."""
