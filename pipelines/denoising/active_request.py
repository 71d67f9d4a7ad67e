"""ActiveRequest: one request on its way through the engine's loop, with its samples, pictures and timings."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pipelines.denoising.device_clock import Mark
from pipelines.denoising.needs import Needs
from pipelines.denoising.sample import Picture, Sample
from pipelines.drawing import Drawing, Timings
from pipelines.messages import Progress
from pipelines.request import Request

Stage: TypeAlias = Literal["encode", "denoise", "decode"]
"""What a request's seconds are counted for."""


@dataclass(eq=False, slots=True)
class Stopwatch:
    """The seconds that one request has spent in each stage, by the clock of the device."""

    _seconds: defaultdict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    _spans: deque[tuple[Stage, Mark, Mark]] = field(default_factory=deque)

    def count(self, stage: Stage, begin: Mark, end: Mark) -> None:
        """Count the work between two marks, in the order in which it was queued."""
        self._spans.append((stage, begin, end))
        while self._spans and self._spans[0][-1].passed:
            self._add_oldest()

    def seconds(self, stage: Stage) -> float:
        """The seconds of a stage; call it when all its work is queued."""
        while self._spans:
            self._add_oldest()
        return self._seconds[stage]

    def _add_oldest(self) -> None:
        stage, begin, end = self._spans.popleft()
        self._seconds[stage] += end.seconds_since(begin)


@dataclass(eq=False, slots=True)
class ActiveRequest:
    """One request inside an engine.

    Attributes:
        ticket_id: the request's place in the server's queue, by whose id messages name it.
        since: monotonic seconds at which it arrived.
        needs: the parts that it needs of each pipeline that has taken it.
        samples: one per seed, in order; a sample that enters its next stage replaces the one before. A
            request that is answered directly has none.
        pictures: the finished ones, in the same order.
    """

    ticket_id: str
    request: Request
    since: float
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    needs: dict[str, Needs] = field(default_factory=dict[str, Needs])
    samples: list[Sample] = field(default_factory=list)
    pictures: list[Picture | None] = field(default_factory=list)

    @property
    def pixels_each(self) -> int:
        """The pixels of one of its pictures."""
        return self.request.pixels // max(1, len(self.samples))

    @property
    def complete(self) -> bool:
        """Whether every picture is finished."""
        return None not in self.pictures

    def progress(self) -> Progress:
        """The number of network evaluations done and in all, over all pictures and stages."""
        done = sum(sample.evaluations_before + sample.sampler.position for sample in self.samples)
        total = sum(
            sample.evaluations_before + sample.sampler.total + sample.evaluations_after
            for sample in self.samples
        )
        return Progress(self.ticket_id, done, total)

    def timings(self) -> Timings:
        """The seconds and evaluations so far."""
        return Timings(
            encode_s=self.stopwatch.seconds("encode"),
            denoise_s=self.stopwatch.seconds("denoise"),
            decode_s=self.stopwatch.seconds("decode"),
            evaluations=self.progress().done,
        )

    def drawing(self) -> Drawing:
        """The finished pictures as an answer; call it when the request is complete."""
        pictures = [picture for picture in self.pictures if picture is not None]
        flags = [picture.flagged for picture in pictures]
        return Drawing(
            images=tuple(picture.image for picture in pictures),
            flagged=None if None in flags else tuple(bool(flag) for flag in flags),
            timings=self.timings(),
            warnings=tuple(dict.fromkeys(warning for picture in pictures for warning in picture.warnings)),
        )
