"""The choice of the waiting request that may begin to be drawn beside those that run."""

from __future__ import annotations

import math
import time
from functools import cache

from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.groups import Groups
from pipelines.denoising.needs import Running
from pipelines.denoising.pool import Pool
from pipelines.denoising.waiting import Needed, Waiting
from pipelines.request import pipelines_of


class Admission:
    """Chooses the oldest request for which there is room.

    A request that does not fit yet lets others past, but not for longer than ``patience_s``.
    """

    def __init__(
        self, pool: Pool, waiting: Waiting, groups: Groups, group_pixels: int, patience_s: float
    ) -> None:
        """
        Args:
            group_pixels: the pixels that one group draws at the same time.
            patience_s: the seconds for which others are admitted before a request that has no room yet.
        """
        self._pool = pool
        self._waiting = waiting
        self._groups = groups
        self.group_pixels = group_pixels
        self.patience_s = patience_s

    def next(self, running: Running, *, busy: bool) -> ActiveRequest | None:
        """The request that begins next; None while there is room for none.

        Args:
            running: what the requests that run need of each pipeline.
            busy: whether any request runs, or has its pipeline read. A request that comes alone has room.
        """
        if not self._waiting:
            return None

        @cache
        def room(needed: Needed) -> float:
            return self._room(needed, running, busy)

        oldest = self._waiting.oldest()
        if oldest.request.pixels <= room(pipelines_of(oldest.request)):
            return oldest
        if time.monotonic() - oldest.since > self.patience_s:
            return None
        return self._waiting.oldest_within(room)

    def _room(self, needed: Needed, running: Running, busy: bool) -> float:
        """The most pixels of a request that may begin now and needs these pipelines; infinite beside none."""
        try:
            if not self._can_open(needed, running, busy):
                return -1
        except Exception:
            return math.inf  # there is no such pipeline: who asks for it is to be told so at once
        beside = self._groups.pixels[needed[0]]
        return self.group_pixels - beside if beside else math.inf

    def _can_open(self, needed: Needed, running: Running, busy: bool) -> bool:
        beside = {**dict.fromkeys(needed, ()), **running}
        fit = [self._pool.can_open(each, beside) for each in needed]  # each: one may be unknown
        return not busy or all(fit)
