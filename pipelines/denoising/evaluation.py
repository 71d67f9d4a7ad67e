"""Evaluations of a network: what a sample asks, what it is answered, and how guidance joins two answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Guidance(Protocol):
    """Joins the two predictions of classifier-free guidance."""

    def __call__(self, negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor: ...


def classifier_free_guidance(negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor:
    """Ho and Salimans 2022, equation 6, in diffusers' order of operations."""
    return negative + guidance_scale * (positive - negative)


AttentionProbe = Callable[[], AbstractContextManager[list[Tensor]]]
"""Records a network's attention inside its ``with`` block: the list grows by one tensor (N, ...) for each
batch of N rows that is evaluated there. It only records: no prediction changes by a bit."""


class Rows(Protocol):
    """Something for each row of a sample's latents: a tensor, or what makes the part that is asked for."""

    @property
    def shape(self) -> torch.Size:
        """(N, ...)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a sample wants to know of its network; it is evaluated together with those of other samples.

    Attributes:
        latents: what the network sees, (B, ...).
        timestep: zero-dimensional.
        conditioning: name -> B rows, or one row for all.
        probe: records attention while these rows are evaluated; all rows of one batch share it.
    """

    latents: Tensor
    timestep: Tensor
    conditioning: Mapping[str, Rows]
    probe: AttentionProbe | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The answer: the network's raw prediction (B, ...) and, where a probe was given, its record (B, ...)."""

    prediction: Tensor
    attention: Tensor | None = None


EvaluationRounds = Generator[Sequence[Evaluation], Sequence[Evaluated], Tensor]
"""One step's way to a sample's guided prediction: asks for evaluations, in one round or in several."""
