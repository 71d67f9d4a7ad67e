"""Take up what commands write into loaded.yaml while the server runs, and tell commands that it runs.

A command changes files only: it works in the same way beside a server and without one. The server looks at
the record every second, waits until nobody draws with what left it, and lets its engines read it again.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from server.engines.dispatch import Dispatch
from server.loading.catalogue import Catalogue
from server.loading.usage import UsageRecord

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Seconds between two looks at loaded.yaml."""

_SERVING = ".serving"
"""The file in the weights folder whose lock is held, shared, by every server that draws with the folder."""


@contextmanager
def announce(weights: Path) -> Generator[None]:
    """Let commands see that a server draws with a weights folder; a read-only one needs no such word."""
    try:
        weights.mkdir(parents=True, exist_ok=True)
        file = (weights / _SERVING).open("a")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_served(weights: Path) -> bool:
    """Whether a server draws with a weights folder now."""
    try:
        file = (weights / _SERVING).open("r+")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def follow(catalogue: Catalogue, dispatch: Dispatch, usage: UsageRecord) -> None:
    """Take up every change of loaded.yaml and record what is used, for as long as the server runs."""
    try:
        while True:
            usage.update(dispatch.resident(), dispatch.last_used)
            await asyncio.sleep(INTERVAL_S)
            try:
                await take_up(catalogue, dispatch)
            except Exception:
                log.exception("what was written into loaded.yaml is left until its next change")
    finally:
        usage.update((), dispatch.last_used, ends=True)


async def take_up(catalogue: Catalogue, dispatch: Dispatch) -> None:
    """Take up what others changed in loaded.yaml since the last look, if anything.

    What came is offered when all engines know it; what left is offered no more before they forget it, and
    the files that were brought for it are removed after that.
    """
    loaded = await asyncio.to_thread(catalogue.changed)
    if loaded is None:
        return
    gone = catalogue.gone(loaded)
    catalogue.forget(set(gone))
    for name in gone:
        await dispatch.retire(name)
    await dispatch.reload()
    catalogue.take(loaded)
    for name, item in gone.items():
        if name not in loaded.entries:
            await asyncio.to_thread(catalogue.remove_files, item)
    log.info("loaded.yaml was changed: %d entries, %d of them left", len(loaded.entries), len(gone))
