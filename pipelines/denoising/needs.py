"""Needs: the parts of a pipeline that a request needs, stage by stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Parts: TypeAlias = frozenset[str]
"""Names of networks, as a pipeline's ``modules`` has them."""

InUse: TypeAlias = Mapping[str, Parts]
"""The parts that may not leave the device now, by pipeline."""

NOTHING: Parts = frozenset()


@dataclass(frozen=True, slots=True)
class Needs:
    """The parts that one request needs on the device at the same time, in each of its stages.

    Parts that the request itself will add (a chosen VAE, a ControlNet) are named although they are not
    there yet; whoever opens them puts them on the device.

    Attributes:
        encode: for encoding; a text encoder only where the request's texts are not cached.
        denoise: for the steps, by the stage of the group (`pipelines.group.GroupKey`), in order.
        finish: for decoding and all that is done to the picture, or for a direct answer.
    """

    encode: Parts = NOTHING
    denoise: Mapping[str, Parts] = field(default_factory=dict)
    finish: Parts = NOTHING

    @property
    def drawing(self) -> Parts:
        """The parts that its steps need, in all stages: they stay for as long as the request runs."""
        return NOTHING.union(*self.denoise.values())

    def finishing(self, stage: str) -> Parts:
        """The parts that finish a sample of this stage: those of the stage where another one follows."""
        last = next(reversed(self.denoise), stage)
        return self.finish if stage == last else self.denoise.get(stage, NOTHING)


@dataclass(frozen=True, slots=True)
class Work:
    """One request's needs of one pipeline."""

    pipeline: str
    needs: Needs


Running: TypeAlias = Mapping[str, Collection[Needs]]
"""What the requests that run need, by pipeline. Of a pipeline without needs, its request has not come so far
that they are known."""
