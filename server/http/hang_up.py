"""The hang-up of a caller: work that nobody waits for any more is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from server import errors

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but cancel it when the caller hangs up; the framework would let it run to its end.

    Call it after the body was read.

    Raises:
        CallerGone: nobody reads the answer any more.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_wait_for_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise errors.CallerGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
