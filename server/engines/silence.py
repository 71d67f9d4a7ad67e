"""The watchdog of an engine process that stands still: a device call that never returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Silence:
    """The time for which an engine that has work has said nothing."""

    def __init__(self, longest_s: float, has_work: Callable[[], bool]) -> None:
        """
        Args:
            longest_s: an engine that has work and says nothing for so long stands still; infinite: none does.
            has_work: whether the engine owes somebody an answer now.
        """
        self._longest_s = longest_s
        self._has_work = has_work
        self._since = 0.0

    def expect_work(self) -> None:
        """Start the silence clock when the engine goes from idle to busy. Call it before the work is counted.

        More work handed to a busy engine must not restart it.
        """
        if not self._has_work():
            self._since = time.monotonic()

    def heard(self) -> None:
        """Restart the silence clock: the engine has just said something."""
        self._since = time.monotonic()

    async def too_long(self) -> float:
        """Wait until the engine stands still; return the seconds of its silence."""
        while True:
            silent_s = time.monotonic() - self._since if self._has_work() else 0.0
            if silent_s >= self._longest_s:
                return silent_s
            await asyncio.sleep(self._longest_s - silent_s)
