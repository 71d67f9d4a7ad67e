"""Ticket: one request on its way through the engine's loop, with its samples, pictures and timings."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.denoising.sample import Picture, Sample
from pipelines.drawing import Drawing, Timings
from pipelines.messages import Progress
from pipelines.request import Request


@dataclass(eq=False, slots=True)
class ActiveRequest:
    """One request inside an engine.

    Attributes:
        ticket_id: the API process's name for it.
        since: monotonic seconds at which it arrived.
        samples: one per seed, in order; a sample that enters its next stage replaces the one before.
        pictures: the finished ones, in the same order.
    """

    ticket_id: str
    request: Request
    since: float
    samples: list[Sample] = field(default_factory=list)
    pictures: list[Picture | None] = field(default_factory=list)
    encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0

    @property
    def pixels(self) -> int:
        """Pixels of all its pictures together."""
        return self.request.width * self.request.height * len(self.request.seeds)

    @property
    def complete(self) -> bool:
        return None not in self.pictures

    def progress(self) -> Progress:
        """Network evaluations done and in all, over all pictures and stages."""
        done = sum(sample.evaluations_before + sample.sampler.position for sample in self.samples)
        total = sum(
            sample.evaluations_before + sample.sampler.total + sample.evaluations_after
            for sample in self.samples
        )
        return Progress(self.ticket_id, done, total)

    def timings(self) -> Timings:
        """Seconds and evaluations so far."""
        return Timings(
            encode_s=self.encode_s,
            denoise_s=self.denoise_s,
            decode_s=self.decode_s,
            evaluations=self.progress().done,
        )

    def drawing(self) -> Drawing:
        """The answer; call it when complete."""
        pictures = [picture for picture in self.pictures if picture is not None]
        flags = [picture.flagged for picture in pictures]
        return Drawing(
            images=tuple(picture.image for picture in pictures),
            flagged=None if None in flags else tuple(bool(flag) for flag in flags),
            timings=self.timings(),
            warnings=tuple(dict.fromkeys(warning for picture in pictures for warning in picture.warnings)),
        )
