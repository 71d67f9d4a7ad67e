"""The engine's loop: admit, encode, denoise one step, decode, report. One thread drives it; nothing locks."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch

from pipelines.denoising import step
from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.pipeline import Errands, Pipeline
from pipelines.denoising.sample import Handover, Picture, Sample
from pipelines.errors import DrawingFailed, GenerationError, OutOfMemory
from pipelines.group import GroupKey
from pipelines.messages import Drawn, Event, Failed, Residency
from pipelines.request import Request, pipelines_of

log = logging.getLogger(__name__)

T = TypeVar("T")

SWAP_PATIENCE_S = 10.0
"""How long a request may be passed by others for lack of room before they stop being admitted."""


class Pool(Protocol):
    """What the loop needs of `pipelines.engine.pool.PipelinePool`."""

    @property
    def resident(self) -> tuple[str, ...]: ...
    @property
    def used_bytes(self) -> int: ...
    def can_open(self, name: str, in_use: Collection[str]) -> bool: ...
    def open(self, name: str, in_use: Collection[str]) -> Pipeline: ...
    def relieve(self, in_use: Collection[str]) -> bool: ...


@dataclass(eq=False, slots=True)
class Group:
    """Samples that share network evaluations, and how many of them fit into one."""

    at_once: int
    members: list[tuple[ActiveRequest, Sample]] = field(default_factory=list)

    def tickets(self) -> list[ActiveRequest]:
        return list(dict.fromkeys(ticket for ticket, _ in self.members))


class Loop:
    """Draws whatever is submitted, groups of different keys taking turns step by step."""

    def __init__(
        self,
        pool: Pool,
        group_pixels: int,
        *,
        device: torch.device | None = None,
        patience_s: float = SWAP_PATIENCE_S,
    ) -> None:
        """
        Args:
            group_pixels: how many pixels one group draws at the same time; a larger request is admitted when
                its pipeline is free, and drawn in parts.
            patience_s: see `SWAP_PATIENCE_S`.
        """
        self._pool = pool
        self._group_pixels = group_pixels
        self._device = device or torch.device("cpu")
        self._patience_s = patience_s
        self._waiting: deque[ActiveRequest] = deque()
        self._running: dict[str, ActiveRequest] = {}
        self._groups: OrderedDict[GroupKey, Group] = OrderedDict()
        self._finished: deque[tuple[ActiveRequest, Sample]] = deque()
        self._events: list[Event] = []
        self._resident: tuple[str, ...] = ()
        self._last_step: torch.cuda.Event | None = None

    @property
    def idle(self) -> bool:
        """Nothing to do until the next `submit`."""
        return not (self._waiting or self._running)

    def submit(self, ticket_id: str, request: Request) -> None:
        """Take a request; it joins the running groups at one of the next turns."""
        self._waiting.append(ActiveRequest(ticket_id, request, time.monotonic()))

    def cancel(self, ticket_id: str) -> None:
        """Drop a request, whether waiting or being drawn; unknown ids (finished meanwhile) are ignored."""
        self._waiting = deque(ticket for ticket in self._waiting if ticket.ticket_id != ticket_id)
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
        if self._finished:
            self._finish(*self._finished.popleft())
        if set(self._pool.resident) != set(self._resident):  # their order is that of use
            self._resident = self._pool.resident
            self._events.append(Residency(self._resident, self._pool.used_bytes))
        events, self._events = self._events, []
        return events

    def _admit(self) -> None:
        """Start what fits, oldest first; what cannot go lets others past, but not for longer than a bound."""
        passed: list[ActiveRequest] = []
        while self._waiting:
            ticket = self._waiting.popleft()
            draining = bool(passed) and time.monotonic() - passed[0].since > self._patience_s
            try:
                if draining or not self._fits(ticket):
                    passed.append(ticket)
                else:
                    self._encode(ticket)
            except Exception as error:
                self._fail(ticket, error)
        self._waiting.extend(passed)

    def _fits(self, ticket: ActiveRequest) -> bool:
        name = ticket.request.pipeline
        beside = [other.pixels for other in self._running.values() if other.request.pipeline == name]
        if beside and sum(beside) + ticket.pixels > self._group_pixels:
            return False
        needed = pipelines_of(ticket.request)
        in_use = {*self._in_use(), *needed}
        return not self._running or all(self._pool.can_open(each, in_use) for each in needed)

    def _in_use(self) -> set[str]:
        return {name for ticket in self._running.values() for name in pipelines_of(ticket.request)}

    def _encode(self, ticket: ActiveRequest) -> None:
        pipeline = self._pool.open(ticket.request.pipeline, self._in_use())
        if isinstance(pipeline, Errands):
            self._run(ticket, pipeline)
            return
        with self._timed(ticket, "encode_s"):
            ticket.samples = self._relieved(
                lambda: pipeline.encode(ticket.request), {*self._in_use(), ticket.request.pipeline}
            )
        ticket.pictures = [None] * len(ticket.samples)
        self._running[ticket.ticket_id] = ticket
        for sample in ticket.samples:
            self._join(ticket, sample)

    def _run(self, ticket: ActiveRequest, pipeline: Errands) -> None:
        """A request without samples is done at once."""
        with self._timed(ticket, "decode_s"):
            answer = self._relieved(
                lambda: pipeline.answer(ticket.request), {*self._in_use(), ticket.request.pipeline}
            )
        self._events.append(Drawn(ticket.ticket_id, replace(answer, timings=ticket.timings())))

    def _join(self, ticket: ActiveRequest, sample: Sample) -> None:
        if sample.sampler.done:
            self._finished.append((ticket, sample))
            return
        pixels = max(1, sample.key.height * sample.key.width)
        group = self._groups.setdefault(sample.key, Group(max(1, self._group_pixels // pixels)))
        group.members.append((ticket, sample))

    def _advance_next_group(self) -> None:
        key = next(iter(self._groups))
        group = self._groups[key]
        self._groups.move_to_end(key)
        started = time.perf_counter()
        try:
            pipeline = self._pool.open(key.pipeline, self._in_use())
            self._relieved(lambda: pipeline.attach(key), self._in_use())
        except Exception as error:
            for ticket in group.tickets():
                self._fail(ticket, error)
            return
        self._advance(group)
        self._keep_pace()
        took = time.perf_counter() - started
        for ticket in group.tickets():
            ticket.denoise_s += took
            self._events.append(ticket.progress())
        self._finished.extend(member for member in group.members if member[1].sampler.done)
        group.members = [member for member in group.members if not member[1].sampler.done]
        if not group.members:
            self._groups.pop(key, None)

    def _advance(self, group: Group) -> None:
        """One evaluation for every sample of the group, in as few batches as memory allows."""
        at_once = group.at_once
        pending = list(group.members)
        while pending := [member for member in pending if member in group.members]:
            part = pending[:at_once]
            error = _attempt([sample for _, sample in part])
            if error is not None and _is_out_of_memory(error):
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
        """Wait for the step before the one just started: a CPU that runs further ahead of its GPU could let
        nobody join or leave in time, and would count the seconds of the steps as those of the decoding."""
        if self._device.type == "cuda":
            before, self._last_step = self._last_step, torch.cuda.Event()
            self._last_step.record(torch.cuda.current_stream(self._device))
            if before is not None:
                before.synchronize()

    def _finish(self, ticket: ActiveRequest, sample: Sample) -> None:
        before = sample.generator.get_state()

        def finish():
            sample.generator.set_state(before)
            result = sample.finish(sample)
            return self._handed_over(sample, result) if isinstance(result, Handover) else result

        try:
            with self._timed(ticket, "decode_s"):
                result = self._relieved(finish, self._in_use())
        except Exception as error:
            self._fail(ticket, error)
            return
        if isinstance(result, Sample):
            ticket.samples[result.index] = result
            self._join(ticket, result)
            return
        ticket.pictures[sample.index] = result
        if ticket.complete:
            self._leave(ticket)
            self._events.append(Drawn(ticket.ticket_id, ticket.drawing()))

    def _handed_over(self, sample: Sample, handover: Handover) -> Sample:
        """The other pipeline's sample, in the place of the one that is done."""
        pipeline = self._pool.open(handover.request.pipeline, self._in_use())
        (further,) = pipeline.encode(handover.request)

        def finish(done: Sample) -> Picture:
            result = further.finish(done)
            assert isinstance(result, Picture)
            warnings = handover.picture.warnings + result.warnings
            return replace(handover.picture, image=result.image, warnings=warnings)

        before = sample.evaluations_before + sample.sampler.total
        return replace(further, index=sample.index, finish=finish, evaluations_before=before)

    def _relieved(self, work: Callable[[], T], in_use: set[str]) -> T:
        """Do the work; when memory runs out, evict what may leave and do it once more."""
        try:
            return work()
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        self._pool.relieve(in_use)
        return work()

    def _fail(self, ticket: ActiveRequest, error: Exception) -> None:
        """Report in the caller's words; an error that leaves the device unusable ends the process instead."""
        if isinstance(error, torch.AcceleratorError):
            raise error
        self._leave(ticket)
        if _is_out_of_memory(error):
            error = OutOfMemory("the request does not fit into this device's memory")
        elif not isinstance(error, GenerationError):
            log.error("drawing %s failed", ticket.ticket_id, exc_info=error)
            error = DrawingFailed("drawing failed")
        self._events.append(Failed(ticket.ticket_id, error))

    def _leave(self, ticket: ActiveRequest) -> None:
        self._running.pop(ticket.ticket_id, None)
        self._finished = deque(member for member in self._finished if member[0] is not ticket)
        for key, group in list(self._groups.items()):
            group.members = [member for member in group.members if member[0] is not ticket]
            if not group.members:
                del self._groups[key]

    @contextmanager
    def _timed(self, ticket: ActiveRequest, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage; on CUDA the work queued in it is waited for."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            setattr(ticket, stage, getattr(ticket, stage) + time.perf_counter() - started)


def _attempt(samples: list[Sample]) -> Exception | None:
    """Advance; return a failure. One for lack of memory has lost its traceback, which holds the tensors."""
    try:
        step.advance(samples)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        return error.with_traceback(None) if _is_out_of_memory(error) else error
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's allocator has a class for it; the CPU's, cuBLAS and cuDNN say it in words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("DefaultCPUAllocator", "_STATUS_ALLOC_FAILED"))
