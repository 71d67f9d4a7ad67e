"""Pull several repositories: several files at once, in threads, so that a failing one loses no other."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pipelines.weights.downloads import PlannedPull, demand_room, plan
from pipelines.weights.hub import Bar, Hub, PullError
from pipelines.weights.repositories import Repository

AT_ONCE = 4
"""The most files that are fetched at the same time: more seldom is faster, and wakes the hub's limits."""

INTERRUPTED = 130
"""The exit status after Ctrl-C."""

_PATIENCE_S = 3.0
"""Seconds for which transfers are waited for after Ctrl-C; one whose next bytes do not come is left."""


class Stopped(Exception):
    """A transfer was told to end; what came of its file is kept."""


class Watcher(Protocol):
    """Is told what a pull does; the calls come from the thread that pulls, and a bar's from others."""

    def planned(self, pulls: Sequence[PlannedPull], free: int) -> None:
        """All that is going to be fetched is known; ``free``: bytes of free disk."""

    def bar(self, pull: PlannedPull, origin: str) -> Bar:
        """A file begins; its bytes are told to this."""
        ...

    def fetched(self, pull: PlannedPull, origin: str) -> None:
        """A file is here."""

    def here(self, pull: PlannedPull) -> None:
        """All files of a repository are here, and in the lock."""

    def failed(self, repository: Repository, error: PullError) -> None:
        """A repository, or a file of it, could not be pulled."""

    def interrupted(self) -> None:
        """Ctrl-C ended the pull."""


class _Stoppable:
    """A bar that ends its transfer when the pull stops."""

    def __init__(self, bar: Bar, stop: threading.Event) -> None:
        self._bar, self._stop = bar, stop

    def update(self, n: float, /) -> None:
        self._bar.update(n)
        if self._stop.is_set():
            raise Stopped


class _Pulling:
    """One pull of several repositories.

    Attributes:
        failures: what went wrong, in the order in which it did.
    """

    def __init__(self, hub: Hub, weights: Path, watcher: Watcher, *, upgrade: bool) -> None:
        self._hub, self._weights, self._watcher, self._upgrade = hub, weights, watcher, upgrade
        self._stop = threading.Event()
        self._same: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.failures: list[PullError] = []

    def run(self, wanted: Sequence[Repository]) -> None:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull")
        futures: list[Future[None]] = []
        try:
            plans = self._planned(pool, wanted)
            if self._stop.is_set():
                return
            self._watcher.planned(plans, shutil.disk_usage(self._weights).free)
            if plans:
                demand_room(plans, self._weights)
            self._fetch(pool, plans, futures)
        except KeyboardInterrupt:
            self._stop.set()
            self._watcher.interrupted()
            pool.shutdown(wait=False, cancel_futures=True)
            if wait(futures, _PATIENCE_S).not_done:
                os._exit(INTERRUPTED)  # what came is on the disk already
            raise
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _planned(self, pool: ThreadPoolExecutor, wanted: Sequence[Repository]) -> list[PlannedPull]:
        """The plans of all repositories that can be pulled; the failures of the others are told."""
        asked = [pool.submit(plan, self._hub, each, self._weights, upgrade=self._upgrade) for each in wanted]
        plans: list[PlannedPull] = []
        for repository, future in zip(wanted, asked, strict=True):
            try:
                plans.append(future.result())
            except PullError as error:
                self._fail(repository, error)
                if error.fatal:
                    break
        return plans

    def _fetch(
        self, pool: ThreadPoolExecutor, plans: Sequence[PlannedPull], futures: list[Future[None]]
    ) -> None:
        left = Counter({id(each): len(each.missing) for each in plans})
        of: dict[Future[None], tuple[PlannedPull, str]] = {}
        for each in plans:
            if not each.missing:
                self._finish(each)
            for origin in each.missing:
                of[pool.submit(self._bring, each, origin)] = (each, origin)
        futures.extend(of)
        for future in as_completed(of):
            pull, origin = of[future]
            try:
                future.result()
            except PullError as error:
                self._fail(pull.repository, error)
                if error.fatal:
                    return
                continue
            self._watcher.fetched(pull, origin)
            left[id(pull)] -= 1
            if not left[id(pull)]:
                self._finish(pull)

    def _bring(self, pull: PlannedPull, origin: str) -> None:
        """Fetch one file. Two of the same bytes have one partial file, and come one after the other."""
        with self._same[pull.listing[origin].upstream]:
            if self._stop.is_set():
                raise Stopped
            pull.fetch(origin, _Stoppable(self._watcher.bar(pull, origin), self._stop))

    def _finish(self, pull: PlannedPull) -> None:
        pull.finish(self._weights)
        self._watcher.here(pull)

    def _fail(self, repository: Repository, error: PullError) -> None:
        self.failures.append(error)
        self._watcher.failed(repository, error)
        if error.fatal:
            self._stop.set()


def pull_all(
    hub: Hub, wanted: Sequence[Repository], weights: Path, watcher: Watcher, *, upgrade: bool = False
) -> list[PullError]:
    """Pull repositories; a fatal failure stops the pull, any other loses its own repository alone.

    Returns:
        what went wrong.
    Raises:
        DiskFull: not all of it has room on the disk; nothing large was fetched.
        KeyboardInterrupt: the next pull goes on from here.
        OSError: the weights folder cannot be written.
    """
    pulling = _Pulling(hub, weights, watcher, upgrade=upgrade)
    with suppress(Stopped):
        pulling.run(wanted)
    return pulling.failures
