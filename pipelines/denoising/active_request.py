"""ActiveRequest: one request on its way through the engine's loop, with its samples, pictures and timings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from pipelines.denoising.sample import Picture, Sample
from pipelines.drawing import Drawing, Timings
from pipelines.messages import Progress
from pipelines.request import Request


@dataclass(eq=False, slots=True)
class Stopwatch:
    """The seconds that one request has spent in each stage.

    Attributes:
        device: encoding and decoding wait for the work that they have queued on a CUDA device.
    """

    device: torch.device
    encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0

    @contextmanager
    def encode(self) -> Iterator[None]:
        """Count the block as encoding."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.encode_s += time.perf_counter() - started

    @contextmanager
    def denoise(self) -> Iterator[None]:
        """Count the block as denoising. It does not wait for the device, which is one step behind."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.denoise_s += time.perf_counter() - started

    @contextmanager
    def decode(self) -> Iterator[None]:
        """Count the block as decoding; a direct answer is nothing else."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.decode_s += time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(eq=False, slots=True)
class ActiveRequest:
    """One request inside an engine.

    Attributes:
        ticket_id: the request's place in the server's queue, by whose id messages name it.
        since: monotonic seconds at which it arrived.
        samples: one per seed, in order; a sample that enters its next stage replaces the one before. A
            request that is answered directly has none.
        pictures: the finished ones, in the same order.
    """

    ticket_id: str
    request: Request
    since: float
    stopwatch: Stopwatch
    samples: list[Sample] = field(default_factory=list)
    pictures: list[Picture | None] = field(default_factory=list)

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
            encode_s=self.stopwatch.encode_s,
            denoise_s=self.stopwatch.denoise_s,
            decode_s=self.stopwatch.decode_s,
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
