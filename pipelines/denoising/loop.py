"""The engine's loop: admit, encode, denoise one step, decode, report. One thread drives it; nothing locks."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch

from pipelines.denoising import step
from pipelines.denoising.active_request import ActiveRequest, Stopwatch
from pipelines.denoising.blame import in_callers_words
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Handover, Picture, Sample
from pipelines.drawing import Drawing
from pipelines.errors import DrawingFailed, GenerationError, OutOfMemory, is_out_of_memory
from pipelines.group import PATIENCE_S, GroupKey
from pipelines.messages import Drawn, Event, Failed, Residency
from pipelines.request import Request, pipelines_of

log = logging.getLogger(__name__)

T = TypeVar("T")


class Pool(Protocol):
    """The part of `pipelines.engine.pool.PipelinePool` that the loop needs."""

    @property
    def resident(self) -> tuple[str, ...]: ...
    @property
    def used_bytes(self) -> int: ...
    def can_open(self, name: str, in_use: Collection[str]) -> bool: ...
    def open(self, name: str, in_use: Collection[str]) -> Pipeline: ...
    def relieve(self, in_use: Collection[str]) -> bool: ...


@dataclass(eq=False, slots=True)
class Group:
    """Samples that share network evaluations.

    Attributes:
        at_once: the most samples that one evaluation takes.
    """

    at_once: int
    members: list[tuple[ActiveRequest, Sample]] = field(default_factory=list)

    def requests(self) -> list[ActiveRequest]:
        """The requests to which the samples belong, each once."""
        return list(dict.fromkeys(active for active, _ in self.members))

    @contextmanager
    def denoise(self) -> Iterator[None]:
        """Count the block as denoising for every request of the group."""
        with ExitStack() as stopwatches:
            for active in self.requests():
                stopwatches.enter_context(active.stopwatch.denoise())
            yield


class Loop:
    """Draws what is submitted. Groups of different keys take turns step by step."""

    def __init__(
        self,
        pool: Pool,
        group_pixels: int,
        *,
        device: torch.device | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """
        Args:
            group_pixels: the pixels that one group draws at the same time. A larger request is admitted when
                its pipeline is free, and drawn in parts.
            patience_s: the seconds for which others are admitted before a request that has no room yet.
        """
        self._pool = pool
        self._group_pixels = group_pixels
        self._device = device or torch.device("cpu")
        self._patience_s = patience_s
        self._waiting: deque[ActiveRequest] = deque()
        self._running: dict[str, ActiveRequest] = {}
        self._groups: OrderedDict[GroupKey, Group] = OrderedDict()
        self._finishing: deque[tuple[ActiveRequest, Sample | DirectAnswer]] = deque()
        self._events: list[Event] = []
        self._resident: tuple[str, ...] = ()
        self._last_step: torch.cuda.Event | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next `submit`."""
        return not (self._waiting or self._running)

    @property
    def in_use(self) -> set[str]:
        """The names of the pipelines that running requests need."""
        return self._in_use()

    def submit(self, ticket_id: str, request: Request) -> None:
        """Take a request; it joins the running groups at one of the next turns."""
        stopwatch = Stopwatch(self._device)
        self._waiting.append(ActiveRequest(ticket_id, request, time.monotonic(), stopwatch))

    def cancel(self, ticket_id: str) -> None:
        """Drop a request, whether waiting or being drawn; unknown ids (finished meanwhile) are ignored."""
        self._waiting = deque(active for active in self._waiting if active.ticket_id != ticket_id)
        if ticket_id in self._running:
            self._leave(self._running[ticket_id])

    @torch.no_grad()
    def turn(self) -> list[Event]:
        """Admit what fits, advance one group by one evaluation, finish at most one picture.

        Returns:
            what happened since the last turn, in order.
        """
        self._admit()
        if self._groups:
            self._advance_next_group()
        if self._finishing:
            self._finish(*self._finishing.popleft())
        if set(self._pool.resident) != set(self._resident):  # their order is that of use
            self._resident = self._pool.resident
            self._events.append(Residency(self._resident, self._pool.used_bytes))
        events, self._events = self._events, []
        return events

    def _admit(self) -> None:
        """Start the requests that fit, oldest first.

        A request that does not fit yet lets others past, but not for longer than ``patience_s``.
        """
        passed: list[ActiveRequest] = []
        while self._waiting:
            active = self._waiting.popleft()
            draining = bool(passed) and time.monotonic() - passed[0].since > self._patience_s
            try:
                if draining or not self._fits(active):
                    passed.append(active)
                else:
                    self._encode(active)
            except Exception as error:
                self._fail(active, error)
        self._waiting.extend(passed)

    def _fits(self, active: ActiveRequest) -> bool:
        request = active.request
        beside = [
            other.request.pixels
            for other in self._running.values()
            if other.request.pipeline == request.pipeline
        ]
        if beside and sum(beside) + request.pixels > self._group_pixels:
            return False
        needed = pipelines_of(request)
        in_use = {*self._in_use(), *needed}
        return not self._running or all(self._pool.can_open(each, in_use) for each in needed)

    def _in_use(self) -> set[str]:
        return {name for active in self._running.values() for name in pipelines_of(active.request)}

    def _encode(self, active: ActiveRequest) -> None:
        name = active.request.pipeline
        pipeline = self._pool.open(name, self._in_use())
        with active.stopwatch.encode():
            encoded = self._relieved(lambda: pipeline.encode(active.request), {*self._in_use(), name})
        self._running[active.ticket_id] = active
        if isinstance(encoded, DirectAnswer):
            self._finishing.append((active, encoded))
            return
        active.samples, active.pictures = encoded, [None] * len(encoded)
        for sample in encoded:
            self._join(active, sample)

    def _join(self, active: ActiveRequest, sample: Sample) -> None:
        if sample.sampler.done:
            self._finishing.append((active, sample))
            return
        pixels = max(1, sample.key.height * sample.key.width)
        group = self._groups.setdefault(sample.key, Group(max(1, self._group_pixels // pixels)))
        group.members.append((active, sample))

    def _advance_next_group(self) -> None:
        key = next(iter(self._groups))
        group = self._groups[key]
        self._groups.move_to_end(key)
        with group.denoise():
            try:
                pipeline = self._pool.open(key.pipeline, self._in_use())
                self._relieved(lambda: pipeline.attach(key), self._in_use())
            except Exception as error:
                for active in group.requests():
                    self._fail(active, error)
                return
            self._advance(group)
            self._keep_pace()
        self._events.extend(active.progress() for active in group.requests())
        self._finishing.extend(member for member in group.members if member[1].sampler.done)
        group.members = [member for member in group.members if not member[1].sampler.done]
        if not group.members:
            self._groups.pop(key, None)

    def _advance(self, group: Group) -> None:
        """Evaluate every sample of the group once, in as few batches as memory allows."""
        at_once = group.at_once
        pending = list(group.members)
        while pending := [member for member in pending if member in group.members]:
            part = pending[:at_once]
            error = _attempt([sample for _, sample in part])
            if error is not None and is_out_of_memory(error):
                if len(part) > 1:
                    group.at_once = at_once = len(part) // 2
                    log.warning("out of memory with %d samples, going on with %d", len(part), at_once)
                if self._pool.relieve(self._in_use()) or len(part) > 1:
                    continue
            elif error is not None and len(part) > 1:
                at_once = 1  # one of them is at fault: let the others go on without it
                continue
            if error is not None:
                self._fail(part[0][0], error)
            pending = pending[len(part) :]

    def _keep_pace(self) -> None:
        """Wait for the step before the one just started.

        A CPU that runs further ahead of its GPU could let nobody join or leave in time, and would count the
        seconds of the steps as those of the decoding.
        """
        if self._device.type == "cuda":
            before, self._last_step = self._last_step, torch.cuda.Event()
            self._last_step.record(torch.cuda.current_stream(self._device))
            if before is not None:
                before.synchronize()

    def _finish(self, active: ActiveRequest, finishing: Sample | DirectAnswer) -> None:
        """Make the picture of a sample that is done, or the direct answer to its request."""
        work = finishing.answer if isinstance(finishing, DirectAnswer) else self._finisher(finishing)
        try:
            with active.stopwatch.decode():
                result = self._relieved(work, self._in_use())
        except Exception as error:
            self._fail(active, error)
            return
        match result:
            case Sample():
                active.samples[result.index] = result
                self._join(active, result)
            case Picture() if isinstance(finishing, Sample):
                active.pictures[finishing.index] = result
                if active.complete:
                    self._report(active, active.drawing())
            case Drawing():
                self._report(active, replace(result, timings=active.timings()))

    def _finisher(self, sample: Sample) -> Callable[[], Sample | Picture]:
        """The work of finishing a sample, which may be done twice.

        The second time it finds the sample's generator as the first time did.
        """
        before = sample.generator.get_state()

        def finish() -> Sample | Picture:
            sample.generator.set_state(before)
            result = sample.finish(sample)
            return self._handed_over(sample, result) if isinstance(result, Handover) else result

        return finish

    def _handed_over(self, sample: Sample, handover: Handover) -> Sample:
        """The sample that goes on in the other pipeline, in the place of the finished one.

        When the other pipeline answers directly, the same sample is returned, and finishing it gives that
        answer.
        """
        pipeline = self._pool.open(handover.request.pipeline, self._in_use())
        encoded = pipeline.encode(handover.request)
        if isinstance(encoded, DirectAnswer):
            return replace(sample, finish=lambda _: handover.taken_back(_picture(encoded.answer())))
        (further,) = encoded

        def finish(done: Sample) -> Picture:
            result = further.finish(done)
            assert isinstance(result, Picture)
            return handover.taken_back(result)

        before = sample.evaluations_before + sample.sampler.total
        return replace(further, index=sample.index, finish=finish, evaluations_before=before)

    def _report(self, active: ActiveRequest, drawing: Drawing) -> None:
        self._leave(active)
        self._events.append(Drawn(active.ticket_id, drawing))

    def _relieved(self, work: Callable[[], T], in_use: set[str]) -> T:
        """Do the work. When memory runs out, evict what may leave and do it once more."""
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._pool.relieve(in_use)
        return work()

    def _fail(self, active: ActiveRequest, error: Exception) -> None:
        """Report an error in the caller's words; one that leaves the device unusable ends the process."""
        if isinstance(error, torch.AcceleratorError):
            raise error
        self._leave(active)
        if is_out_of_memory(error):
            error = OutOfMemory("the request does not fit into this device's memory")
        elif not isinstance(error, GenerationError):
            log.error("drawing %s failed", active.ticket_id, exc_info=error)
            error = DrawingFailed("drawing failed")
        else:
            if error.__cause__ is not None:
                log.warning("drawing %s failed: %s", active.ticket_id, error, exc_info=error.__cause__)
            error = in_callers_words(error, active.request)
        self._events.append(Failed(active.ticket_id, error))

    def _leave(self, active: ActiveRequest) -> None:
        self._running.pop(active.ticket_id, None)
        self._finishing = deque(member for member in self._finishing if member[0] is not active)
        for key, group in list(self._groups.items()):
            group.members = [member for member in group.members if member[0] is not active]
            if not group.members:
                del self._groups[key]


def _picture(drawing: Drawing) -> Picture:
    """The picture of a direct answer that has one."""
    (image,) = drawing.images
    return Picture(image, warnings=drawing.warnings)


def _attempt(samples: list[Sample]) -> Exception | None:
    """Advance the samples by one step and return the failure, if there is one.

    An out-of-memory error comes without its traceback, which would hold the tensors.
    """
    try:
        step.advance(samples)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        return error.with_traceback(None) if is_out_of_memory(error) else error
    return None
