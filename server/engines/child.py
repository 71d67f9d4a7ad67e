"""One engine process from both sides: its first steps, and the threads that speak with it for asyncio."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Any, cast

from pipelines.errors import GenerationError
from pipelines.messages import Broken, Command, EngineConfig, Event, Stop

log = logging.getLogger(__name__)

Target = Callable[["Connection[Any, Any]", EngineConfig], None]
"""The program of an engine process: it sends Ready, then answers commands with events until Stop or EOF."""

LEAVE_S = 5.0
"""The seconds that a process may take to stop when it was asked to."""

TERMINATE_S = 2.0
"""The seconds that a process may take to end after SIGTERM, before it is killed."""

_PR_SET_PDEATHSIG = 1


def draw(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """The target that draws; only here does the server reach into the drawing engine, and hence torch."""
    # Half a million objects come with torch and its company, and stay: a fifth of the time of importing them
    # would go into looking for garbage among them.
    gc.disable()
    from pipelines.engine.process import serve

    gc.freeze()
    gc.enable()
    serve(connection, config)


def main(connection: Connection[Any, Any], config: EngineConfig, target: Target) -> None:
    """The engine process from its start to its end."""
    _die_with_parent()
    # Ctrl-C reaches every process of the terminal; the API process decides when its engines stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format=f"%(asctime)s %(levelname)s engine {config.device} %(name)s: %(message)s")
    try:
        target(connection, config)
    except Exception as error:
        expected = isinstance(error, GenerationError)
        reason = str(error) if expected else f"it failed with {type(error).__name__}; the log says why"
        log.error("the engine ends: %s", reason, exc_info=not expected)
        with suppress(OSError):
            connection.send(Broken(reason))
        os._exit(1)
    # Taking torch down in order takes seconds and saves nothing: what had to be said is in the pipe.
    os._exit(0)


class ChildProcess:
    """A running engine process. Neither speaking to it nor listening blocks the event loop.

    All callbacks come on the event loop that made it: ``on_event`` for each event, ``on_lost`` as soon as
    nothing more will come. When the process has ended and was reaped, `gone` is set.
    """

    def __init__(
        self,
        config: EngineConfig,
        target: Target,
        *,
        on_event: Callable[[Event], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_lost = on_lost
        self._outbox: SimpleQueue[Command | None] = SimpleQueue()
        self._process: SpawnProcess | None = None
        self._leaving = False
        self.gone = asyncio.Event()
        # The thread that starts the process lives as long as the process: Linux counts it as the parent.
        threading.Thread(
            target=self._live, args=(config, target), name=f"engine {config.device}", daemon=True
        ).start()

    @property
    def pid(self) -> int | None:
        """The process id; None before the process has started."""
        return self._process.pid if self._process else None

    @property
    def how_it_ended(self) -> str:
        """The exit status or signal of the process, in words for the log; known when `gone` is set."""
        code = self._process.exitcode if self._process else None
        if code is None:
            return "the process could not be started"
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def send(self, command: Command) -> None:
        """Hand a command over to the process; it is lost when the process is."""
        self._outbox.put(command)

    def kill(self) -> None:
        """End the process at once, whatever it hangs in; what follows is as if it had died by itself."""
        if self._process:
            self._process.kill()

    async def leave(self, *, gently: bool) -> None:
        """Make the process end and wait for that; ``gently`` lets it end by itself first."""
        self._leaving = True
        if gently:
            self.send(Stop())
            if await self._gone_within(LEAVE_S):
                return
        if self._process:
            self._process.terminate()
            if not await self._gone_within(TERMINATE_S):
                self._process.kill()
        await self.gone.wait()

    async def _gone_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), seconds)
        return self.gone.is_set()

    def _live(self, config: EngineConfig, target: Target) -> None:
        """Start the process, hand over its events, reap it. Runs in a thread of its own."""
        # The mask is inherited: no Ctrl-C can hit the new process before it ignores them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            connection, process = _start(config, target)
        except Exception:
            log.exception("an engine process could not be started")
        else:
            self._process = process
            self._accompany(connection, process)
        self._call(self.gone.set)

    def _accompany(self, connection: Connection[Any, Any], process: SpawnProcess) -> None:
        if self._leaving:
            process.kill()
        writer = threading.Thread(target=self._write, args=(connection, process), daemon=True)
        writer.start()
        self._read(connection)
        self._call(self._on_lost)
        if not self._leaving:
            # It may have closed the pipe and live on; it is of no use any more.
            process.kill()
        process.join()
        self._outbox.put(None)
        writer.join()
        connection.close()

    def _read(self, connection: Connection[Any, Any]) -> None:
        try:
            while True:
                self._call(self._on_event, connection.recv())
        except (EOFError, OSError):
            return
        except Exception:
            log.exception("an engine sent something unreadable")

    def _write(self, connection: Connection[Any, Any], process: SpawnProcess) -> None:
        """Send the commands of the outbox, until None. Runs in a thread: large pictures take their time."""
        while (command := self._outbox.get()) is not None:
            try:
                connection.send(command)
            except OSError:
                return
            except Exception:
                log.exception("a command could not be sent")
                process.kill()
                return

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop is closed: the server is going down
            self._loop.call_soon_threadsafe(function, *arguments)


def _start(config: EngineConfig, target: Target) -> tuple[Connection[Any, Any], SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    connection, other_end = cast("tuple[Connection[Any, Any], Connection[Any, Any]]", context.Pipe())
    with other_end:
        process = context.Process(
            target=main, args=(other_end, config, target), name=f"engine {config.device}", daemon=True
        )
        process.start()
    return connection, process


def _die_with_parent() -> None:
    """End at once when the API process does, however it ends and whatever the engine is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
