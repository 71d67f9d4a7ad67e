"""GroupKey: who may share one network evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.request import Lora, Prompted, Request, Rewriting


@dataclass(frozen=True, slots=True)
class GroupKey:
    """Everything that one evaluation of a network shares; whatever else a request says, its samples carry.

    Attributes:
        pipeline: name in the manifest.
        stage: which of the pipeline's networks ("denoise", or "prior" for Kandinsky's).
        height, width: pixels that are drawn (before cropping); 0 where the stage has no picture size.
        loras: adapters attached to the network, in the request's order.
        token_merging_ratio: a patch of the network, hence shared.
        controlnets: names of the networks that are evaluated before it; their pictures and scales are the
            samples' own.
    """

    pipeline: str
    stage: str
    height: int
    width: int
    loras: tuple[Lora, ...] = ()
    token_merging_ratio: float = 0.0
    controlnets: tuple[str, ...] = ()


def round_up(pixels: int, multiple: int) -> int:
    """The next size from ``pixels`` upward that a network can draw."""
    return -(-pixels // multiple) * multiple


def group_key(request: Request, *, multiple: int = 8, stage: str = "denoise") -> GroupKey:
    """The key under which a request's samples are drawn.

    Args:
        multiple: sides of the drawn picture are multiples of this many pixels.
    """
    if isinstance(request, Rewriting):
        return GroupKey(request.pipeline, stage, height=0, width=0)
    sides = round_up(request.height, multiple), round_up(request.width, multiple)
    if not isinstance(request, Prompted):
        return GroupKey(request.pipeline, stage, *sides)
    controlnets = tuple(control.name for control in request.controls)
    return GroupKey(request.pipeline, stage, *sides, request.loras, request.token_merging_ratio, controlnets)
