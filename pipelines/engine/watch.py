"""The watch over what cannot be drawn with: it tells the server, and opens what is pinned once it can."""

from __future__ import annotations

import logging
import time
from multiprocessing.connection import Connection
from typing import Any

from pipelines.denoising.needs import InUse
from pipelines.engine.loader import Loader
from pipelines.engine.pool import PipelinePool
from pipelines.errors import GenerationError
from pipelines.messages import Absences, Absent, Loading

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""The seconds between two looks whether weights came or went; a look takes some milliseconds."""


class Watch:
    """Tells the server what cannot be drawn with, and opens pinned pipelines as soon as they can be.

    Attributes:
        loads: reads what is pinned beside the loop; None before there is one.
    """

    def __init__(self, connection: Connection[Any, Any], pool: PipelinePool, *, preload: bool) -> None:
        self._connection = connection
        self._pool = pool
        self._preload = preload
        self.loads: Loader | None = None
        self._told: tuple[Absent, ...] = ()
        self._next_s = 0.0
        self._preloaded: set[str] = set()

    @property
    def pause_s(self) -> float:
        """The seconds until the next look is due."""
        return max(0.0, self._next_s - time.monotonic())

    @property
    def is_due(self) -> bool:
        """Whether the next look is due."""
        return not self.pause_s

    def tell(self) -> None:
        """Send the absences if they have changed."""
        absences = self._pool.absences
        if absences != self._told:
            self._told = absences
            self._connection.send(Absences(absences))

    def look(self, in_use: InUse) -> None:
        """Look whether weights came or went, and open what is pinned and was not yet."""
        self._pool.look(in_use)
        for name in self._pool.pinned() if self._preload else ():
            if self._pool.lacks(name):
                self._preloaded.discard(name)
            elif name not in self._preloaded:
                self._preloaded.add(name)
                self._open(name, in_use)
        self._next_s = time.monotonic() + LOOK_S

    def _open(self, name: str, in_use: InUse) -> None:
        """Open a pinned pipeline. One that does not open is told, and stops nothing else."""
        self._connection.send(Loading(name))
        try:
            if self.loads is not None:
                self.loads.ready(name, in_use)
            else:
                self._pool.open(name)
        except GenerationError as error:
            log.error("%s was not loaded at the start: %s", name, error)
