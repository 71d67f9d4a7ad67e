"""Whether requests fit a device together: the most bytes of weights that they need there at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipelines.denoising.needs import Needs, Work
from pipelines.request import Control
from pipelines.weights.entries import PipelineEntry
from pipelines.weights.memory import stages

Sizes = Callable[[str, str], int]
"""The bytes of a part, by the names of its pipeline and its own."""


def peak_bytes(running: Iterable[Work], new: Iterable[Work], sizes: Sizes) -> int:
    """The most bytes that all these requests need on the device at one moment.

    What is needed for steps stays for as long as a request runs, since groups take turns step by step. Beside
    that, one request at a time is encoded or finished.
    """
    running, new = list(running), list(new)
    before = {(work.pipeline, part) for work in running for part in work.needs.drawing}
    after = before | {(work.pipeline, part) for work in new for part in work.needs.drawing}
    moments = {frozenset(after)}
    moments |= {frozenset(before | {(work.pipeline, part) for part in work.needs.encode}) for work in new}
    moments |= {
        frozenset(after | {(work.pipeline, part) for part in work.needs.finish}) for work in (*running, *new)
    }
    return max(sum(sizes(*part) for part in moment) for moment in moments)


def whole(parts: Iterable[str]) -> Needs:
    """The needs of a pipeline whose parts are all on the device, or none."""
    return Needs(denoise={"denoise": frozenset(parts)})


def expected_needs(entry: PipelineEntry) -> Needs:
    """What any request needs of a pipeline of which no request is known, or that was not opened yet."""
    needed = {stage: frozenset(parts) for stage, parts in stages(entry).items()}
    nothing = frozenset[str]()
    encode, finish = needed.pop("encode", nothing), needed.pop("finish", nothing)
    return Needs(encode, {str(stage): parts for stage, parts in needed.items()}, finish)


def with_controls(needs: Needs, controls: Iterable[Control]) -> Needs:
    """The needs with the ControlNets that a request adds."""
    added = frozenset(f"controlnet:{control.name}" for control in controls)
    denoise = {stage: parts | added for stage, parts in needs.denoise.items()}
    return Needs(needs.encode, denoise, needs.finish)
