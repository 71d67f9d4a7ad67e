"""The dispatch of requests to engines: each is fed up to its room; a lost one's requests go to another."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from pipelines.drawing import Drawing
from pipelines.errors import EngineLost
from pipelines.group import GroupKey
from pipelines.messages import Absent, ClearCache, Maintenance, Reload
from pipelines.request import Prompted, SafetyCheck, pipelines_of
from pipelines.request import Request as DrawRequest
from server import errors
from server.engines.engine import Engine, EngineState
from server.engines.queue import JobQueue, Offer, Ticket

ATTEMPTS = 2
"""The most engines that may be lost while they draw one request: it may be the request that kills them."""

GIVEN_UP = (EngineState.failed, EngineState.stopped)


class Dispatch:
    """The one way from a request to its drawing.

    Args:
        why_none: the reason why there is no engine at all, fit for a caller; None where there are some.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        queue: JobQueue,
        *,
        queue_timeout_s: float,
        why_none: str | None = None,
    ) -> None:
        self._engines = {engine.name: engine for engine in engines}
        if len(self._engines) != len(engines):
            raise ValueError("two engines have the same name")
        self._queue = queue
        self._queue_timeout_s = queue_timeout_s
        self._why_none = why_none
        self._held: dict[str, dict[str, Ticket]] = {name: {} for name in self._engines}
        self._draining: str | None = None
        self._restart: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._stopped = False

    @property
    def queue_length(self) -> int:
        """The number of requests that wait for an engine."""
        return len(self._queue)

    @property
    def expected_wait_s(self) -> float:
        """The seconds for which a new request would wait for an engine, roughly."""
        return self._queue.expected_wait_s

    @property
    def running(self) -> int:
        """The number of requests that engines hold now."""
        return sum(len(tickets) for tickets in self._held.values())

    def resident(self) -> tuple[str, ...]:
        """The pipelines that some engine can draw without loading anything, sorted."""
        return tuple(sorted({name for engine in self._ready() for name in engine.resident}))

    def readiness(self) -> str | None:
        """The reason why no engine can draw now, fit for a caller; None when one can."""
        if self._stopped:
            return "the server is stopping"
        if self._ready():
            return None
        engines = self._engines.values()
        if not engines and self._why_none:
            return self._why_none
        if all(engine.state in GIVEN_UP for engine in engines):
            return f"no engine is running: {_reasons(engines) or 'none is configured'}"
        return _reasons([engine for engine in engines if engine.state not in GIVEN_UP])

    def absences(self) -> tuple[Absent, ...]:
        """All that no engine can draw with, since weights are missing or damaged."""
        known = [engine.absences for engine in self._engines.values() if engine.state not in GIVEN_UP]
        if not known:
            return ()
        return tuple(
            absence
            for absence in known[0]
            if all(any(absence.names_the_same(each) for each in other) for other in known[1:])
        )

    def refuse_if_absent(self, request: DrawRequest) -> None:
        """Refuse early, before anything is held, what lacks its weights.

        Raises:
            NotHere: something that the request needs is missing or damaged.
        """
        absences = self.absences()
        if not absences:
            return
        names, parts = _names_in(request), _optional_parts_of(request)
        for absence in absences:
            if not names.isdisjoint((absence.name, *absence.also)) and absence.part in (None, *parts):
                raise errors.from_drawing(absence.error())

    def refuse_if_full(self, account_id: int) -> None:
        """Refuse early, before anything is held, what `draw` would refuse.

        Raises:
            QueueFull, Unavailable: see `draw`.
        """
        self._refuse_if_no_engine()
        self._queue.refuse_if_full(account_id)

    async def start(self) -> None:
        """Begin to start every engine; `readiness` tells when the first one can draw."""
        for engine in self._engines.values():
            engine.watch(self._engine_changed)
            await engine.start()

    async def stop(self) -> None:
        """Fail every request that waits or is drawn, and stop every engine."""
        self._stopped = True
        if self._restart is not None:
            self._restart.cancel()
            with suppress(asyncio.CancelledError):
                await self._restart
        self._queue.refuse_all("the server is stopping")
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))

    def restart(self) -> None:
        """Begin to start every engine anew, one after the other; nothing is lost.

        Each draws to the end what it has and takes nothing new meanwhile; what waits stays in the queue. A
        restart that is under way already is not begun again.
        """
        if self._restart is None or self._restart.done():
            self._restart = asyncio.create_task(self._restart_engines(), name="restart of the engines")

    async def clear_cache(self) -> None:
        """Have every engine drop what it keeps only to save time; return when all have."""
        await self._maintain(ClearCache)

    async def reload(self) -> None:
        """Have every engine learn what can be drawn now; return when all have."""
        await self._maintain(Reload)

    async def retire(self, name: str) -> None:
        """Return when no engine draws with this checkpoint or adapter any more.

        Requests that wait and name it are refused; new ones are not to come, since it left the catalogue.
        """
        refusal = errors.NotFound(f"{name} was deleted while the request waited")
        self._queue.refuse(lambda ticket: name in _names_in(ticket.request), refusal)
        held = self._held.values()
        await self._until(
            lambda: (
                not any(name in _names_in(ticket.request) for held_by in held for ticket in held_by.values())
            )
        )

    async def draw(
        self,
        request: DrawRequest,
        *,
        account_id: int,
        on_progress: Callable[[int, int], None],
        on_start: Callable[[], Awaitable[None]] | None = None,
        ticket_id: str | None = None,
        bounded: bool = True,
    ) -> Drawing:
        """Wait for an engine and draw; cancelling the awaiting task withdraws the request wherever it is.

        Args:
            ticket_id: the name of the request in the engines' logs; no other one may have it at the same
                time. None: a new one.
            on_progress: called with network evaluations (done, total); begins anew when an engine was lost.
            on_start: awaited each time an engine takes the request, before it draws.
            bounded: False takes the request even when the queue is full: it was accepted before a restart.
        Raises:
            QueueFull: no place in the queue.
            QueueTimeout: no engine took it in time.
            Unavailable: no engine runs, and none is about to.
            NotHere: something that the request needs lacks its weights.
            EngineLost: the engine was lost, and so was the next one.
            GenerationError: the request cannot be drawn.
        """
        self._refuse_if_no_engine()
        self.refuse_if_absent(request)
        ticket = Ticket(request, account_id, ticket_id or uuid.uuid4().hex)
        self._queue.put(ticket, bounded=bounded)
        try:
            while True:
                try:
                    return await self._attempt(ticket, on_progress, on_start)
                except EngineLost:
                    if ticket.attempts >= ATTEMPTS or self._stopped:
                        raise
                self._refuse_if_no_engine()
                self._queue.put_back(ticket)
        finally:
            self._feed()

    async def _attempt(
        self,
        ticket: Ticket,
        on_progress: Callable[[int, int], None],
        on_start: Callable[[], Awaitable[None]] | None,
    ) -> Drawing:
        try:
            self._feed()
            engine = self._engines[await self._queue.turn(ticket, self._queue_timeout_s)]
            if on_start is not None:
                await on_start()
            if engine.state is not EngineState.ready:
                raise EngineLost("The engine was lost before it began")
            ticket.attempts += 1
            return await engine.draw(ticket.id, ticket.request, on_progress)
        finally:
            # By ticket, not by engine: a task that is cancelled may never learn which engine took its ticket.
            for tickets in self._held.values():
                tickets.pop(ticket.id, None)
            self._news.set()

    async def _maintain(self, command: Callable[[str], Maintenance]) -> None:
        await asyncio.gather(
            *(engine.maintain(command(uuid.uuid4().hex)) for engine in self._engines.values())
        )

    async def _restart_engines(self) -> None:
        try:
            for engine in self._engines.values():
                self._draining = engine.name
                await self._until(lambda name=engine.name: not self._held[name])
                await engine.restart()
                self._draining = None
                # Only then the next one, so that somebody draws all the time.
                await self._until(lambda engine=engine: engine.state is not EngineState.starting)
        finally:
            self._draining = None

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds that changes when a ticket leaves or when an engine's state does."""
        while not holds():
            self._news.clear()
            await self._news.wait()

    def _feed(self) -> None:
        """Hand out tickets until no engine has room for any of them."""
        while len(self._queue) and (
            taken := self._queue.take([self._offer(engine) for engine in self._taking()])
        ):
            ticket, name = taken
            self._held[name][ticket.id] = ticket

    def _offer(self, engine: Engine) -> Offer:
        held: Counter[GroupKey] = Counter()
        for ticket in self._held[engine.name].values():
            held[ticket.key] += ticket.request.pixels
        return Offer(
            engine=engine.name,
            group_pixels=engine.group_pixels,
            resident=engine.resident | {key.pipeline for key in held},
            held=held,
        )

    def _ready(self) -> list[Engine]:
        return [engine for engine in self._engines.values() if engine.state is EngineState.ready]

    def _taking(self) -> list[Engine]:
        return [engine for engine in self._ready() if engine.name != self._draining]

    def _engine_changed(self) -> None:
        self._news.set()
        if all(engine.state in GIVEN_UP for engine in self._engines.values()):
            self._queue.refuse_all(self.readiness() or "no engine is running")
        else:
            self._feed()

    def _refuse_if_no_engine(self) -> None:
        if self._stopped or all(engine.state in GIVEN_UP for engine in self._engines.values()):
            raise errors.Unavailable(self.readiness() or "no engine is running")


def _names_in(request: DrawRequest) -> set[str]:
    """The pipeline and adapters that a request names."""
    names = {*pipelines_of(request)}
    if isinstance(request, Prompted):
        names |= {lora.name for lora in request.loras} | set(request.embeddings)
        names |= {control.name for control in request.controls}
        names |= {request.vae} if request.vae else set()
    return names


def _optional_parts_of(request: DrawRequest) -> tuple[str, ...]:
    """The parts that a pipeline draws without, and that this request needs for certain."""
    checked = isinstance(request, SafetyCheck) or (isinstance(request, Prompted) and request.safety_checker)
    return ("safety_checker",) if checked else ()


def _reasons(engines: Iterable[Engine]) -> str:
    """The reasons of these engines as one text; with their names where there are several."""
    reasons = {engine.name: engine.reason or engine.state for engine in engines}
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
