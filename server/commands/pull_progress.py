"""What a person sees of a pull: sizes before, bars on a terminal, a line for each file elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipelines.weights.downloads import PlannedPull, sized
from pipelines.weights.hub import Bar, PullError
from pipelines.weights.repositories import Repository
from server.commands.listing import print_table

_SMALL_BYTES = 10_000_000
"""The most bytes of a file that has no bar of its own on a terminal."""


class Lines:
    """Tells a pull in lines, for a log or a pipe; a terminal has bars besides.

    Attributes:
        plans: what is going to be fetched.
        problems: what went wrong, by repository.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """
        Args:
            quiet: print nothing on stdout, which something else is for.
        """
        self._quiet = quiet
        self.plans: Sequence[PlannedPull] = ()
        self._done_files = 0
        self._done_bytes = 0
        self.problems: dict[str, str] = {}

    def planned(self, pulls: Sequence[PlannedPull], free: int) -> None:
        self.plans = pulls
        if not self._quiet:
            print_plan(pulls, free)

    def bar(self, pull: PlannedPull, origin: str) -> Bar:
        return _Silent()

    def fetched(self, pull: PlannedPull, origin: str) -> None:
        self._done_files += 1
        self._done_bytes += pull.listing[origin].size
        self._say(
            f"{pull.repository.hub}/{origin}: {sized(pull.listing[origin].size)}, {self._done_files} of"
            f" {sum(len(each.missing) for each in self.plans)} files, {sized(self._done_bytes)} of"
            f" {sized(sum(each.missing_bytes for each in self.plans))}"
        )

    def here(self, pull: PlannedPull) -> None:
        if pull.missing:
            self._say(f"{pull.repository.hub} is here.")

    def failed(self, repository: Repository, error: PullError) -> None:
        self.problems[repository.hub] = str(error)
        print(error, file=sys.stderr)

    def interrupted(self) -> None:
        print("Interrupted; the next pull goes on from here.", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the display."""

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)


class Bars(Lines):
    """Tells a pull with one bar for each large file and one for all of it, on a terminal's stderr."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._all: TaskID | None = None
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._guard = threading.Lock()

    def planned(self, pulls: Sequence[PlannedPull], free: int) -> None:
        super().planned(pulls, free)
        total = sum(each.missing_bytes for each in pulls)
        begun = sum(each.begun_bytes for each in pulls)
        self._all = self._progress.add_task("all", total=total, completed=begun)
        self._progress.start()

    def bar(self, pull: PlannedPull, origin: str) -> Bar:
        size = pull.listing[origin].size
        task: TaskID | None = None
        if size > _SMALL_BYTES:
            words = f"{pull.repository.hub.rpartition('/')[2]}/{origin}"
            task = self._progress.add_task(words[-60:], total=size, completed=pull.begun(origin))
            with self._guard:
                self._tasks[pull.repository.key, origin] = task
        return _Both(self._progress, [each for each in (task, self._all) if each is not None])

    def fetched(self, pull: PlannedPull, origin: str) -> None:
        with self._guard:
            task = self._tasks.pop((pull.repository.key, origin), None)
        if task is not None:
            self._progress.remove_task(task)

    def here(self, pull: PlannedPull) -> None:
        if pull.missing:
            self._progress.console.print(f"{pull.repository.hub} is here.", highlight=False)

    def failed(self, repository: Repository, error: PullError) -> None:
        self.problems[repository.hub] = str(error)
        self._progress.console.print(str(error), highlight=False, markup=False)

    def interrupted(self) -> None:
        self.close()
        super().interrupted()

    def close(self) -> None:
        self._progress.stop()


class _Silent:
    def update(self, n: float, /) -> None:
        """Show nothing."""


class _Both:
    """The bar of one file, which moves that of all of them, too."""

    def __init__(self, progress: Progress, tasks: list[TaskID]) -> None:
        self._progress, self._tasks = progress, tasks

    def update(self, n: float, /) -> None:
        for task in self._tasks:
            self._progress.advance(task, n)


def watcher(*, quiet: bool) -> Lines:
    """Bars on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    return Bars(console, quiet=quiet) if console.is_terminal else Lines(quiet=quiet)


def print_plan(pulls: Sequence[PlannedPull], free: int) -> None:
    """Print what is going to be fetched: bytes for each repository and in all, and the free disk."""
    rows = [
        (
            each.repository.hub,
            each.commit[:10],
            str(len(each.chosen)),
            str(len(each.missing)),
            sized(each.missing_bytes),
            sized(each.begun_bytes) if each.begun_bytes else "",
        )
        for each in pulls
    ]
    headings = ("REPOSITORY", "COMMIT", "FILES", "TO FETCH", "SIZE", "BEGUN")
    print_table(headings, rows, right=frozenset(headings[2:]))
    needed = sum(each.missing_bytes - each.begun_bytes for each in pulls)
    if needed:
        print(f"{sized(needed)} to fetch; {sized(free)} of the disk are free.", flush=True)


def plan_as_json(pulls: Sequence[PlannedPull], problems: dict[str, str], free: int) -> dict[str, Any]:
    """The plan, and what came of it, for programs."""
    return {
        "repositories": [
            {
                "hub": each.repository.hub,
                "revision": each.repository.revision,
                "commit": each.commit,
                "users": each.repository.users,
                "files": len(each.chosen),
                "to_fetch": len(each.missing),
                "bytes": each.missing_bytes,
                "begun_bytes": each.begun_bytes,
                "here": len(each.files) >= len(each.chosen),
            }
            for each in pulls
        ],
        "bytes": sum(each.missing_bytes for each in pulls),
        "free_bytes": free,
        "problems": problems,
    }
