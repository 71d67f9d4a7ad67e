"""Work on the database that goes on to its end although its caller hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(
    work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[object]] | None = None
) -> T:
    """Await ``work``, which goes on to its end when the awaiting task is cancelled.

    A transaction that is cancelled while it commits may or may not have happened. Here the cancellation is
    raised after the end of the work, and after ``undo`` took back what its result stands for.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ending = asyncio.create_task(_end(task, undo))
        while not ending.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({ending})
        raise


async def _end(task: asyncio.Task[T], undo: Callable[[T], Awaitable[object]] | None) -> None:
    await asyncio.wait({task})
    if undo is not None and not task.cancelled() and task.exception() is None:
        await undo(task.result())
