"""A family's contract: what the loop needs of an opened checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

from pipelines.denoising.sample import Sample
from pipelines.drawing import Drawing
from pipelines.group import GroupKey
from pipelines.request import Request


class Pipeline(Protocol):
    """One opened checkpoint of a family, ready to draw; lives in ``pipelines/families``.

    Constructed by the family's ``open(checkpoint)`` classmethod, always on the CPU's or the device's memory
    that the checkpoint names.
    """

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Every network by its name in the checkpoint, and what requests added, by other names: what the pool
        counts and moves. Cheap: the pool looks at each turn whether the names have changed."""
        ...

    def encode(self, request: Request) -> list[Sample]:
        """Text, picture and pose become conditioning and first latents: one Sample per seed, in order.

        Raises:
            InvalidInput: a field cannot be drawn by this checkpoint.
        """
        ...

    def clear_cache(self) -> None:
        """Drop what is kept between requests to save time, of ``modules`` all that requests added; between
        two turns of the loop, at any moment."""
        ...

    def attach(self, key: GroupKey) -> None:
        """Put exactly the adapters and patches of ``key`` on the networks; cheap when they are there."""
        ...


@runtime_checkable
class Errands(Protocol):
    """A pipeline whose requests need no denoising: each is answered in one go, between two steps."""

    def answer(self, request: Request) -> Drawing:
        """The whole answer; its timings are filled in by the loop.

        Raises:
            InvalidInput: not a request for this pipeline, or one that it cannot answer.
        """
        ...
