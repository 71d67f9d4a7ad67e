"""Marks in the work of a device: whether it has come so far, and the seconds between two, without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch


class Mark(Protocol):
    """A place in the work that was queued on a device."""

    @property
    def passed(self) -> bool:
        """Whether the device has done all that was queued before."""
        ...

    def seconds_since(self, earlier: Any) -> float:
        """The seconds that the device took from an earlier mark of the same clock to this one."""
        ...


Clock: TypeAlias = Callable[[], Mark]
"""Sets a mark after what was queued so far."""


class HostMark:
    """A mark of a device that does its work at once: a CPU."""

    passed = True

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def seconds_since(self, earlier: HostMark) -> float:
        return self._at - earlier._at


class CudaMark:
    """A mark in the current stream of a CUDA device.

    The seconds are the device's own. A mark that it has not passed yet is read by the host's clock, which was
    stopped when the mark was set: nothing waits for the device to have them more exactly.
    """

    def __init__(self, device: torch.device) -> None:
        self._at = time.perf_counter()
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record(torch.cuda.current_stream(device))

    @property
    def passed(self) -> bool:
        return self._event.query()

    def seconds_since(self, earlier: CudaMark) -> float:
        if not self.passed:
            return self._at - earlier._at
        return earlier._event.elapsed_time(self._event) / 1000


def clock_of(device: torch.device) -> Clock:
    """The clock of the work that this thread queues on a device."""
    return (lambda: CudaMark(device)) if device.type == "cuda" else HostMark
