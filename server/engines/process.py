"""An engine in a process of its own on this machine, started again whenever it dies."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

from pipelines.drawing import Drawing
from pipelines.errors import EngineLost
from pipelines.messages import (
    Absences,
    Absent,
    Broken,
    Cancel,
    Done,
    Draw,
    Drawn,
    EngineConfig,
    Event,
    Failed,
    Loading,
    Maintenance,
    Progress,
    Ready,
    Residency,
)
from pipelines.request import Request as DrawRequest
from server.engines import child
from server.engines.child import ChildProcess, Target
from server.engines.engine import EngineState
from server.engines.silence import Silence

log = logging.getLogger(__name__)

GIVE_UP_AFTER_STARTS = 3
"""The failed starts in a row after which nobody should wait for the engine any more."""

FIRST_PAUSE_S = 1.0
"""The seconds between a failed start and the next one; each further failure doubles them."""
LONGEST_PAUSE_S = 60.0
"""The most seconds between a failed start and the next one."""


@dataclass(frozen=True, slots=True)
class _InFlight:
    drawing: asyncio.Future[Drawing]
    on_progress: Callable[[int, int], None]


class LocalEngine:
    """One device of this machine, drawn on by one process that owns it (see `server.engines.engine.Engine`).

    A process that dies is replaced at once; one that dies before it was ready, after a pause that doubles.
    One that stands still (a device call that never returns) is killed.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        name: str | None = None,
        target: Target = child.draw,
        silence_s: float = math.inf,
    ) -> None:
        """
        Args:
            name: unique among engines; None: the device's.
            target: what the process does, a module-level function.
            silence_s: the seconds of silence after which a process that has work is killed.
        """
        self.name = name or config.device
        self.group_pixels = config.group_pixels
        self.state = EngineState.stopped
        self.reason: str | None = "not started"
        self.resident: frozenset[str] = frozenset()
        self.absences: tuple[Absent, ...] = ()
        self._config = config
        self._target = target
        self._watchers: list[Callable[[], None]] = []
        self._in_flight: dict[str, _InFlight] = {}
        self._maintenance: dict[str, asyncio.Future[None]] = {}
        self._child: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._silence = Silence(silence_s, lambda: bool(self._in_flight or self._maintenance))
        self._was_ready = False
        self._restarting = False
        self._failed_starts = 0
        self._broken: str | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the engine process that runs now."""
        return self._child.pid if self._child else None

    def watch(self, on_change: Callable[[], None]) -> None:
        self._watchers.append(on_change)

    async def start(self) -> None:
        if self._keeper is None:
            self._set_state(EngineState.starting, "starting")
            self._keeper = asyncio.create_task(self._keep_running(), name=f"keeper of {self.name}")

    async def stop(self) -> None:
        if self._keeper is None:
            return
        gently = self.state is EngineState.ready
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None
        self._set_state(EngineState.stopped, "stopped")
        self._lose_in_flight()
        if self._child is not None:
            # Before it is ready a process may be deep in loading weights and hear nothing.
            await self._child.leave(gently=gently)
            self._child = None

    async def restart(self) -> None:
        if self._child is None or self._child.gone.is_set():
            return  # stopped, or about to be started again
        gently = self.state is EngineState.ready
        self._restarting = True
        self._set_state(EngineState.starting, "restarting")
        self._lose_in_flight()
        await self._child.leave(gently=gently)  # its keeper starts the next one

    async def maintain(self, maintenance: Maintenance) -> None:
        if self._child is None or self._child.gone.is_set():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._silence.expect_work()
        self._maintenance[maintenance.maintenance_id] = done
        self._child.send(maintenance)
        try:
            await done
        finally:
            self._maintenance.pop(maintenance.maintenance_id, None)

    async def draw(
        self, ticket_id: str, request: DrawRequest, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        if self._child is None or self.state is not EngineState.ready:
            raise EngineLost("The engine is not running")
        process = self._child
        drawing: asyncio.Future[Drawing] = asyncio.get_running_loop().create_future()
        self._silence.expect_work()
        self._in_flight[ticket_id] = _InFlight(drawing, on_progress)
        process.send(Draw(ticket_id, request))
        try:
            return await drawing
        except asyncio.CancelledError:
            process.send(Cancel(ticket_id))
            raise
        finally:
            self._in_flight.pop(ticket_id, None)

    async def _keep_running(self) -> None:
        """Replace the process whenever it has ended, for as long as the engine is to run."""
        while True:
            self._was_ready, self._broken, self._restarting, self.absences = False, None, False, ()
            process = ChildProcess(
                self._config, self._target, on_event=self._receive, on_lost=self._process_lost
            )
            self._child = process
            watchdog = asyncio.create_task(self._kill_when_silent(process))
            try:
                await process.gone.wait()
            finally:
                watchdog.cancel()
            self._lose_in_flight()
            if self._restarting:
                continue
            why = self._broken or process.how_it_ended
            if self._was_ready:
                log.error("engine %s was lost (%s); starting it again", self.name, why)
                self._set_state(EngineState.starting, f"starting again, the engine was lost: {why}")
                continue
            self._failed_starts += 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed_starts - 1))
            log.error("engine %s did not start (%s); trying again in %g s", self.name, why, pause_s)
            given_up = self._failed_starts >= GIVE_UP_AFTER_STARTS
            self._set_state(EngineState.failed if given_up else EngineState.starting, f"did not start: {why}")
            await asyncio.sleep(pause_s)

    async def _kill_when_silent(self, process: ChildProcess) -> None:
        silent_s = await self._silence.too_long()
        log.error("engine %s has work and said nothing for %g s; killing it", self.name, silent_s)
        process.kill()

    def _set_state(self, state: EngineState, reason: str | None) -> None:
        self.state, self.reason = state, reason
        if state is not EngineState.ready:
            self.resident = frozenset()
        self._notify_watchers()

    def _log_absences(self, absences: tuple[Absent, ...]) -> None:
        """Write one line about what has become unavailable, and one about what is here again."""
        new, gone = set(absences) - set(self.absences), set(self.absences) - set(absences)
        if new:
            log.warning("engine %s cannot draw with: %s", self.name, "; ".join(_short(each) for each in new))
        if back := gone - {each for each in gone if any(each.name == other.name for other in new)}:
            log.info("engine %s can draw again with: %s", self.name, ", ".join(each.name for each in back))

    def _notify_watchers(self) -> None:
        for on_change in self._watchers:
            on_change()

    def _process_lost(self) -> None:
        """Let those who wait for the lost process go elsewhere at once: nothing more will come from it."""
        if self.state is EngineState.ready:
            self._set_state(EngineState.starting, "the engine was lost")
        self._lose_in_flight()

    def _lose_in_flight(self) -> None:
        in_flight, self._in_flight = self._in_flight, {}
        for waiting in in_flight.values():
            if not waiting.drawing.done():
                waiting.drawing.set_exception(EngineLost("The engine that drew this request was lost"))
        for done in self._maintenance.values():
            if not done.done():
                done.set_result(None)

    def _receive(self, event: Event) -> None:
        self._silence.heard()
        match event:
            case Loading(pipeline):
                if self.state is EngineState.starting:
                    self._set_state(EngineState.starting, f"loading {pipeline}")
            case Broken(reason):
                self._broken = reason
            case Ready(_, resident, _):
                self._was_ready, self._failed_starts = True, 0
                self.resident = frozenset(resident)
                self._set_state(EngineState.ready, None)
            case Residency(resident, _, _):
                self.resident = frozenset(resident)
                self._notify_watchers()
            case Absences(absences):
                self._log_absences(absences)
                self.absences = absences
                self._notify_watchers()
            case Progress(ticket_id, done, total):
                if waiting := self._in_flight.get(ticket_id):
                    waiting.on_progress(done, total)
            case Drawn(ticket_id, drawing):
                waiting = self._in_flight.get(ticket_id)
                if waiting and not waiting.drawing.done():
                    waiting.drawing.set_result(drawing)
            case Failed(ticket_id, error):
                waiting = self._in_flight.get(ticket_id)
                if waiting and not waiting.drawing.done():
                    waiting.drawing.set_exception(error)
            case Done(maintenance_id):
                if (done := self._maintenance.get(maintenance_id)) and not done.done():
                    done.set_result(None)
            case _:
                assert_never(event)


def _short(absence: Absent) -> str:
    """An absence in the log's words."""
    part = "" if absence.part is None else f" ({absence.part})"
    return f"{absence.name}{part}, {absence.reason}: {absence.remedy}"
