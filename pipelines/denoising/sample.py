"""Sample: one picture in the making, and what it needs from its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from pipelines.denoising.evaluation import EvaluationRounds, Guidance, Rows, classifier_free_guidance
from pipelines.denoising.sampler import Sampler
from pipelines.group import GroupKey
from pipelines.image_io import RGBImage
from pipelines.request import Request


@dataclass(frozen=True, slots=True)
class Denoiser:
    """One network of a family, as the loop evaluates it.

    Attributes:
        predict: (model input (N, ...), timesteps (N,), conditioning name -> (N, ...)) -> prediction (N, ...).
        guidance: joins the prediction without the prompt and the one with it.
        layer: makes the guided prediction of a sample; None: ``guidance`` and nothing else.
    """

    predict: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    guidance: Guidance = classifier_free_guidance
    layer: Callable[[Sample], EvaluationRounds] | None = None


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The inputs of a network for one sample, besides latents and time.

    Attributes:
        positive: name -> (1, ...), or (B, ...) where B rows are evaluated for the sample: the two embeddings
            of Kandinsky's prior, the views of a panorama.
        negative: the same for the unconditional half; None: no guidance, one evaluation row less.
    """

    positive: Mapping[str, Rows]
    negative: Mapping[str, Rows] | None

    @classmethod
    def same_for_both(cls, rows: Mapping[str, Rows]) -> Conditioning:
        """Rows that are the same with the prompt and without it."""
        return Conditioning(rows, rows)

    def __or__(self, other: Conditioning) -> Conditioning:
        """This conditioning with the other's rows added; it has no negative half where this one has none."""
        positive = {**self.positive, **other.positive}
        if self.negative is None:
            return Conditioning(positive, None)
        return Conditioning(positive, {**self.negative, **(other.negative or {})})


Finish: TypeAlias = "Callable[[Sample], Sample | Handover | Picture]"
"""Finishes a sample whose sampler is done: with its picture, with the sample of its next stage, or with work
for another pipeline."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sample:
    """One picture in the making.

    Attributes:
        index: position of its seed in the request.
        key: the group in which it is drawn.
        latents: (B, C, h, w), B = 1 but for Kandinsky's prior, whose two embeddings share one noise draw.
        generator: on the CPU, seeded with the picture's own seed; every random number comes from it.
        finish: called when the sampler is done. The sample of a next stage (Kandinsky: prior -> decoder)
            joins the group of its own key.
        evaluations_before: evaluations of earlier stages, for the progress.
        evaluations_after: evaluations of later stages, for the progress.
    """

    request: Request
    index: int
    key: GroupKey
    latents: Tensor
    conditioning: Conditioning
    guidance_scale: float
    generator: torch.Generator
    sampler: Sampler
    denoiser: Denoiser
    finish: Finish
    evaluations_before: int = 0
    evaluations_after: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished sample.

    Attributes:
        flagged: the safety checker's verdict; None where no checker has looked.
    """

    image: RGBImage
    flagged: bool | None = None
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Handover:
    """A finished sample that another pipeline goes on with.

    Attributes:
        request: the work of the other pipeline, for one picture.
        picture: the picture as it is handed over.
    """

    request: Request
    picture: Picture

    def taken_back(self, result: Picture) -> Picture:
        """The handed-over picture with the other pipeline's pixels, and its warnings added."""
        warnings = self.picture.warnings + result.warnings
        return replace(self.picture, image=result.image, warnings=warnings)
