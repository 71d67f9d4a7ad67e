"""The turns of this process's writers: they wait for each other here, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from server import errors


class Writers:
    """The writers of one database, of whom ``room`` may write at a time; None: all may."""

    def __init__(self, room: int | None, *, wait_s: float) -> None:
        self._semaphore = None if room is None else asyncio.Semaphore(room)
        self._wait_s = wait_s

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, in the order of arrival, and keep it until the context is left.

        Raises:
            Unavailable: the turn did not come within ``wait_s``.
        """
        if self._semaphore is None:
            yield
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._semaphore.acquire()
        except TimeoutError:
            raise errors.Unavailable("The database is busy, try again shortly") from None
        try:
            yield
        finally:
            self._semaphore.release()
