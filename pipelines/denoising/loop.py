"""The engine's loop: admit, encode, denoise one step, decode, report. One thread drives it; nothing locks."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from pipelines.denoising import step
from pipelines.denoising.active_request import ActiveRequest, Stage
from pipelines.denoising.admission import Admission
from pipelines.denoising.awaited import Awaited
from pipelines.denoising.blame import told
from pipelines.denoising.device_clock import Clock, Mark, clock_of
from pipelines.denoising.groups import Group, Groups
from pipelines.denoising.handing_over import handed_over
from pipelines.denoising.in_use import parts_in_use, running_needs
from pipelines.denoising.needs import NOTHING, InUse, Running
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.pool import PipelineLoader, Pool
from pipelines.denoising.sample import Handover, Picture, Sample
from pipelines.denoising.waiting import Waiting
from pipelines.drawing import Drawing
from pipelines.errors import is_out_of_memory
from pipelines.group import PATIENCE_S
from pipelines.messages import Drawn, Event, Failed, PartResidency, Residency
from pipelines.request import Request, pipelines_of

log = logging.getLogger(__name__)

T = TypeVar("T")


class Loop:
    """Draws what is submitted. Groups of different keys take turns step by step."""

    def __init__(
        self,
        pool: Pool,
        group_pixels: int,
        *,
        device: torch.device | None = None,
        patience_s: float = PATIENCE_S,
        clock: Clock | None = None,
        loader: PipelineLoader | None = None,
    ) -> None:
        """
        Args:
            group_pixels: the pixels that one group draws at the same time. A larger request is admitted when
                its pipeline is free, and drawn in parts.
            patience_s: the seconds for which others are admitted before a request that has no room yet.
            clock: sets marks in the work of the device; None: `clock_of` the device.
            loader: reads pipelines beside the loop; None: they are opened between two steps.
        """
        self._pool = pool
        self._mark = clock or clock_of(device or torch.device("cpu"))
        self._waiting = Waiting()
        self._awaited = Awaited(loader)
        self._running: dict[str, ActiveRequest] = {}
        self._needed: Counter[str] = Counter()
        self._groups = Groups(group_pixels)
        self._admission = Admission(pool, self._waiting, self._groups, group_pixels, patience_s)
        self._finishing: deque[tuple[ActiveRequest, Sample]] = deque()
        self._answering: deque[tuple[ActiveRequest, DirectAnswer]] = deque()
        self._events: list[Event] = []
        self._loaded: set[str | PartResidency] = set()
        self._last_steps: deque[Mark] = deque(maxlen=2)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next `submit`, or until a pipeline is loaded."""
        return not (self._waiting or self._running)

    @property
    def in_use(self) -> InUse:
        """The parts that running requests need, by pipeline."""
        return self._in_use()

    @property
    def device_is_behind(self) -> bool:
        """Whether two steps are on their way to the device, and no further one is begun for the moment.

        A CPU that runs further ahead of its GPU could let nobody join or leave in time.
        """
        return len(self._last_steps) == 2 and not self._last_steps[0].passed

    def submit(self, ticket_id: str, request: Request) -> None:
        """Take a request; it joins the running groups at one of the next turns."""
        self._waiting.add(ActiveRequest(ticket_id, request, time.monotonic()))

    def cancel(self, ticket_id: str) -> None:
        """Drop a request, whether waiting or being drawn; unknown ids (finished meanwhile) are ignored."""
        self._waiting.remove(ticket_id)
        self._awaited.remove(ticket_id)
        if ticket_id in self._running:
            self._leave(self._running[ticket_id])

    def turn(self) -> list[Event]:
        """Admit what fits, advance one group by one evaluation, finish everything that is done.

        Returns:
            what happened since the last turn, in order.
        """
        return [event for events in self.turn_in_parts() for event in events]

    @torch.no_grad()
    def turn_in_parts(self) -> Iterator[list[Event]]:
        """Take a turn part by part: first a step, then one picture after the other, of whose memory no more
        than one is needed at a time.

        Between two parts requests may be submitted and cancelled, and the turn may be left.

        Yields:
            what happened since the last part, in order.
        """
        self._admit()
        if self.device_is_behind:
            yield self._news()
            return
        if self._groups:
            self._advance_next_group()
        yield self._news()
        while self._finishing:
            active, sample = self._finishing.popleft()
            self._finish(active, sample)
            yield self._news()
        if self._answering:  # work of its own: one between two steps
            self._answer(*self._answering.popleft())
            yield self._news()

    def _news(self) -> list[Event]:
        """What happened since the last time."""
        resident, parts = self._pool.resident, self._pool.parts
        if (loaded := {*resident, *parts}) != self._loaded:  # their order is that of use
            self._loaded = loaded
            self._events.append(Residency(resident, self._pool.used_bytes, parts))
        events, self._events = self._events, []
        return events

    def _admit(self) -> None:
        """Start the requests that fit, oldest first."""
        self._take_loaded()
        while active := self._admission.next(self._running_needs(), busy=self._is_busy):
            try:
                if not self._pool.can_take(active.request, self._running_needs()) and self._is_busy:
                    return
                self._waiting.remove(active.ticket_id)
                if not self._awaited.takes(active, self._in_use()):
                    self._encode(active)
            except Exception as error:
                self._waiting.remove(active.ticket_id)
                self._fail(active, error)

    def _take_loaded(self) -> None:
        """Let the requests whose pipeline is loaded be the first ones again; fail those whose is not."""
        for active, error in self._awaited.ended(self._in_use()):
            if error is None:
                self._waiting.put_back(active)
            else:
                self._fail(active, error)

    @property
    def _is_busy(self) -> bool:
        return bool(self._running or self._awaited)

    def _running_needs(self) -> Running:
        return running_needs((*self._needed, *self._awaited), self._running.values())

    def _in_use(self) -> InUse:
        return parts_in_use((*self._needed, *self._awaited), self._groups)

    def _encode(self, active: ActiveRequest) -> None:
        name = active.request.pipeline
        in_use = self._in_use()
        pipeline = self._pool.open(name, in_use)
        active.needs[name] = pipeline.needs(active.request)

        def encode() -> list[Sample] | DirectAnswer:
            self._pool.bring(name, pipeline.needs(active.request).encode, in_use)
            return pipeline.encode(active.request)

        with self._timed("encode", [active]):
            encoded = self._relieved(encode, {name: NOTHING, **in_use})
        self._running[active.ticket_id] = active
        self._needed.update(pipelines_of(active.request))
        if isinstance(encoded, DirectAnswer):
            self._answering.append((active, encoded))
            return
        active.samples, active.pictures = encoded, [None] * len(encoded)
        for sample in encoded:
            self._join(active, sample)

    def _join(self, active: ActiveRequest, sample: Sample) -> None:
        if sample.sampler.done:
            self._finishing.append((active, sample))
        else:
            self._groups.join(active, sample)

    def _advance_next_group(self) -> None:
        group = self._groups.next()
        with self._timed("denoise", group.requests()):
            try:
                in_use = self._in_use()
                pipeline = self._pool.open(group.key.pipeline, in_use)
                self._relieved(lambda: self._attach(pipeline, group, in_use), in_use)
            except Exception as error:
                for active in group.requests():
                    self._fail(active, error)
                return
            self._advance(group)
        self._last_steps.append(self._mark())
        self._events.extend(active.progress() for active in group.requests())
        self._finishing.extend(self._groups.take_done(group))

    def _attach(self, pipeline: Pipeline, group: Group, in_use: InUse) -> None:
        self._pool.bring(group.key.pipeline, group.parts, in_use)
        pipeline.attach(group.key)

    @contextmanager
    def _timed(self, stage: Stage, requests: Collection[ActiveRequest]) -> Iterator[None]:
        """Count the block, and what it queues on the device, as a stage of these requests."""
        begin = self._mark()
        try:
            yield
        finally:
            end = self._mark()
            for active in requests:
                active.stopwatch.count(stage, begin, end)

    def _advance(self, group: Group) -> None:
        """Evaluate every sample of the group once, in as few batches as memory allows."""
        at_once = group.at_once
        pending = list(group.members)
        while pending := [member for member in pending if member in group.members]:
            part = pending[:at_once]
            error = step.attempt([sample for _, sample in part])
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

    def _finish(self, active: ActiveRequest, sample: Sample) -> None:
        """Make the picture of a sample that is done, or let it enter its next stage."""
        result = self._done(active, self._finisher(active, sample))
        match result:
            case Sample():
                active.samples[result.index] = result
                self._join(active, result)
            case Picture():
                active.pictures[sample.index] = result
                if active.complete:
                    self._report(active, active.drawing())
            case None:
                pass

    def _answer(self, active: ActiveRequest, direct: DirectAnswer) -> None:
        """Give the direct answer to a request; it is all decoding."""
        name, in_use = active.request.pipeline, self._in_use()

        def answer() -> Drawing:
            self._pool.bring(name, active.needs[name].finish, in_use)
            return direct.answer()

        drawing = self._done(active, answer)
        if drawing is not None:
            self._report(active, replace(drawing, timings=active.timings()))

    def _done(self, active: ActiveRequest, work: Callable[[], T]) -> T | None:
        """The result of the last work for a request; None when it failed, and the request with it."""
        try:
            with self._timed("decode", [active]):
                return self._relieved(work, self._in_use())
        except Exception as error:
            self._fail(active, error)
            return None

    def _finisher(self, active: ActiveRequest, sample: Sample) -> Callable[[], Sample | Picture]:
        """The work of finishing a sample, which may be done twice.

        The second time it finds the sample's generator as the first time did.
        """
        before = sample.generator.get_state()

        def finish() -> Sample | Picture:
            sample.generator.set_state(before)
            name, in_use = sample.key.pipeline, self._in_use()
            self._pool.bring(name, active.needs[name].finishing(sample.key.stage), in_use)
            result = sample.finish(sample)
            if not isinstance(result, Handover):
                return result
            name = result.request.pipeline
            other = self._pool.open(name, in_use)
            active.needs[name] = other.needs(result.request)
            self._pool.bring(name, active.needs[name].encode, in_use)
            return handed_over(sample, result, other)

        return finish

    def _report(self, active: ActiveRequest, drawing: Drawing) -> None:
        self._leave(active)
        self._events.append(Drawn(active.ticket_id, drawing))

    def _relieved(self, work: Callable[[], T], in_use: InUse) -> T:
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
        error = told(error, active.request, active.ticket_id)
        self._events.append(Failed(active.ticket_id, error))

    def _leave(self, active: ActiveRequest) -> None:
        if self._running.pop(active.ticket_id, None):
            self._needed -= Counter(pipelines_of(active.request))
        self._finishing = deque(member for member in self._finishing if member[0] is not active)
        self._answering = deque(member for member in self._answering if member[0] is not active)
        self._groups.leave(active)
