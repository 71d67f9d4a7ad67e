"""Whether requests fit a device together: the most bytes that they need there at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipelines.denoising.needs import NOTHING, Needs, Work
from pipelines.weights.manifest import PipelineEntry

GIGABYTE = 10**9
"""Bytes of a gigabyte, as the manifest counts them in ``vram_gb``."""

WHOLE = "whole"
"""The only part of a pipeline of which nothing is known but its size."""

Sizes = Callable[[str], Mapping[str, int]]
"""The bytes of a pipeline's parts, by the pipeline's name."""


def peak_bytes(running: Iterable[Work], new: Iterable[Work], sizes: Sizes) -> int:
    """The most bytes that all these requests need on the device at one moment.

    What is needed for steps stays for as long as a request runs, since groups take turns step by step. Beside
    that, one request at a time is encoded or finished.
    """
    running, new = list(running), list(new)
    known: dict[str, Mapping[str, int]] = {}

    def total(parts: Iterable[tuple[str, str]]) -> int:
        return sum(known.setdefault(name, sizes(name)).get(part, 0) for name, part in set(parts))

    def of(works: Iterable[Work]) -> set[tuple[str, str]]:
        return {(work.pipeline, part) for work in works for part in work.needs.drawing}

    before, after = of(running), of([*running, *new])
    moments = [after]
    moments += [before | {(work.pipeline, part) for part in work.needs.encode} for work in new]
    moments += [after | {(work.pipeline, part) for part in work.needs.finish} for work in (*running, *new)]
    return max(map(total, moments), default=0)


def whole(parts: Iterable[str]) -> Needs:
    """The needs of a pipeline whose parts are all on the device, or none."""
    everything = frozenset(parts)
    return Needs(encode=everything, denoise={"denoise": everything}, finish=NOTHING)


def expected_parts(entry: PipelineEntry) -> dict[str, int]:
    """The bytes of each part of a pipeline that was not opened yet, as far as they are known."""
    return {WHOLE: int((entry.vram_gb or 0) * GIGABYTE)}


def expected_needs(entry: PipelineEntry) -> Needs:
    """What a request to a pipeline needs that was not opened yet."""
    return whole([WHOLE])
