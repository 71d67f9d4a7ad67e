"""Evaluations of a network: a sample's question, the answer, and the guidance that joins two answers."""

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
    """Join the predictions by Ho and Salimans 2022, equation 6, in diffusers' order of operations."""
    return negative + guidance_scale * (positive - negative)


AttentionProbe = Callable[[], AbstractContextManager[list[Tensor]]]
"""Records a network's attention inside its ``with`` block: the list grows by one tensor (N, ...) for each
batch of N rows that is evaluated there. It only records: no prediction changes by a bit."""


class Rows(Protocol):
    """Conditioning for each row of a sample's latents: a tensor, or what makes the rows asked for."""

    @property
    def shape(self) -> torch.Size:
        """The shape of all rows together, (N, ...)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation that a sample wants of its network. Those of several samples are done in one batch.

    Attributes:
        latents: the latents as the network sees them, (B, ...).
        timestep: the time of all B rows, zero-dimensional.
        conditioning: name -> B rows, or one row for all.
        probe: records attention while these rows are evaluated; all rows of one batch share it.
    """

    latents: Tensor
    timestep: Tensor
    conditioning: Mapping[str, Rows]
    probe: AttentionProbe | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A network's answer to one `Evaluation`: its raw prediction (B, ...), and what the attention probe
    recorded (B, ...) where there was one."""

    prediction: Tensor
    attention: Tensor | None = None


EvaluationRounds = Generator[Sequence[Evaluation], Sequence[Evaluated], Tensor]
"""A generator that asks for evaluations, in one round or several, and returns the guided prediction."""
