"""Pipelines are read from their files by a thread, while the loop goes on to draw with others."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from pipelines.denoising.needs import InUse
from pipelines.engine.parts import Opened
from pipelines.engine.pool import PipelinePool
from pipelines.errors import OutOfMemory, is_out_of_memory
from pipelines.weights.entries import PipelineEntry

log = logging.getLogger(__name__)

T = TypeVar("T")

WORK_S, REST_S = 0.0005, 0.005
"""The seconds for which the thread computes in Python, and then leaves the interpreter to a loop that draws.

A network's skeleton is thousands of Python objects. Two threads that both want the interpreter hand it over
no more often than at the switch interval, and the loop asks for it with every operation of torch."""

SWITCH_INTERVAL_S = 0.001
"""The switch interval while something is being read; Python's own is 5 ms."""


@dataclass(slots=True)
class _Load:
    """One pipeline that is being read."""

    name: str
    entry: PipelineEntry
    result: Opened | Exception | None = None
    is_second: bool = False


class Loader:
    """Reads pipelines for a pool, one after the other, and hands them over to the loop's thread.

    All methods are the loop's thread's; only what begins with ``_read`` is done by the other one.
    """

    def __init__(self, pool: PipelinePool, is_drawing: Callable[[], bool] = lambda: False) -> None:
        """
        Args:
            is_drawing: whether the loop draws at the moment, so that the thread leaves it room.
        """
        self._pool = pool
        self._is_drawing = is_drawing
        self._loads: dict[str, _Load] = {}
        self._asked: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._wakes, self._waker = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._waker, False)
        self._resumed_s = 0.0

    def fileno(self) -> int:
        """A file that can be read when `finished` has something to do."""
        return self._wakes

    def ready(self, name: str, in_use: InUse) -> bool:
        """Whether a pipeline is opened; if it is not, it is being read from now on.

        Args:
            in_use: parts that must stay, whatever happens.
        Raises:
            UnknownPipeline, CheckpointUnavailable, OutOfMemory: as for `PipelinePool.open`.
        """
        if name in self._pool.resident:
            return True
        if name not in self._loads:
            self._pool.prepare(name, in_use)
            self._begin(_Load(name, self._pool.entry(name)))
        return False

    def finished(self, in_use: InUse) -> list[tuple[str, Exception | None]]:
        """Let the pool have what was read since, and do what the thread must not do beside the loop.

        Returns:
            the name of each pipeline whose reading has ended, with the error if it failed. One without an
            error is opened, or may be asked for again.
        Raises:
            torch.AcceleratorError: the device is unusable.
        """
        self._drain()
        while self._asked:
            _carry_out(*self._asked.popleft())
        ended = [load for load in self._loads.values() if load.result is not None]
        told: list[tuple[str, Exception | None]] = []
        for load in ended:
            del self._loads[load.name]
            if not self._loads:
                sys.setswitchinterval(0.005)
            error = self._take(load, in_use)
            if load.name not in self._loads:  # it may be read once more
                told.append((load.name, error))
        return told

    def _take(self, load: _Load, in_use: InUse) -> Exception | None:
        """Let the pool have a pipeline that was read, or learn why not."""
        result, load.result = load.result, None
        if isinstance(result, torch.AcceleratorError):
            raise result
        if self._pool.entry_or_none(load.name) != load.entry:
            return None  # another manifest came meanwhile: whoever still asks for it is answered by that one
        if isinstance(result, Opened):
            try:
                self._pool.adopt(result, in_use)
            except OutOfMemory as error:
                return None if in_use else error
            return None
        assert result is not None
        if is_out_of_memory(result) and not load.is_second:
            self._pool.relieve(in_use)
            self._begin(_Load(load.name, load.entry, is_second=True))
            return None
        self._pool.failed(load.name, result)
        return result

    def _begin(self, load: _Load) -> None:
        self._loads[load.name] = load
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        threading.Thread(target=self._read, args=(load,), name=f"reads {load.name}", daemon=True).start()

    @torch.no_grad()
    def _read(self, load: _Load) -> None:
        """Read a pipeline; only one is read at a time."""
        try:
            with _ONE_AT_A_TIME:
                self._resumed_s = time.perf_counter()
                load.result = self._pool.read(load.name, self)
        except Exception as error:
            # Without its traceback, which would hold what was read so far.
            load.result = error.with_traceback(None) if is_out_of_memory(error) else error
        self._wake()

    # The pace of the thread (`pipelines.checkpoints.pace.Pace`)

    def pause(self) -> None:
        """Leave the interpreter to the loop for a moment, if it draws; the thread's."""
        now = time.perf_counter()
        if now - self._resumed_s > WORK_S and self._is_drawing():
            time.sleep(REST_S)
            now = time.perf_counter()
        if now - self._resumed_s > WORK_S:
            self._resumed_s = now

    def alone(self, work: Callable[[], T]) -> T:
        """Have the loop's thread do some work between two turns; the thread's."""
        done: Future[object] = Future()
        self._asked.append((work, done))
        self._wake()
        return done.result()  # pyright: ignore[reportReturnType]

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # so much is there already that nobody sleeps
            os.write(self._waker, b"1")

    def _drain(self) -> None:
        try:
            while os.read(self._wakes, 4096):
                pass
        except BlockingIOError:
            return


_ONE_AT_A_TIME = threading.Lock()


def _carry_out(work: Callable[[], object], done: Future[object]) -> None:
    try:
        done.set_result(work())
    except Exception as error:
        done.set_exception(error)
