"""The process that builds the demo's small checkpoints while the server draws with the first ones."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType


class NotBuilt(RuntimeError):
    """The small checkpoints cannot be built; the message says why."""


class Building:
    """Builds in a process of its own, since building needs torch, which the API process never loads.

    Leaving the context ends the process; the next one goes on where it was.

    Args:
        tell: called for each checkpoint that was built now, with its name, its number and how many there are.
    """

    def __init__(self, home: Path, tell: Callable[[str, int, int], None]) -> None:
        self._home = home
        self._tell = tell
        self._changed = threading.Condition()
        self._manifest: Path | None = None
        self._built: set[str] = set()
        self._ended = False
        self._reason = ""

    def __enter__(self) -> Building:
        # Its complaints are shown only where it fails: libraries warn of much that is no concern of a reader.
        self._complaints = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.demo.build", str(self._home)],
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            process_group=0,  # Ctrl-C is for the one that started it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        self._complaints.close()

    def manifest(self) -> Path:
        """Wait for the manifest, which is there before what it names.

        Raises:
            NotBuilt
        """
        self._wait(lambda: self._manifest is not None)
        assert self._manifest is not None
        return self._manifest

    def wait_for(self, names: Collection[str]) -> None:
        """Wait until these checkpoints are there.

        Raises:
            NotBuilt
        """
        self._wait(lambda: self._built.issuperset(names))

    def _wait(self, come: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: come() or self._ended)
            if not come():
                raise NotBuilt(f"The small checkpoints could not be built. {self._reason}".rstrip())

    def _last_complaint(self) -> str:
        self._complaints.seek(0)
        return next((line.strip() for line in reversed(self._complaints.readlines()) if line.strip()), "")

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self._take(line.strip())
        self._process.wait()
        with self._changed:
            # Now: whoever still waits may be told after the complaints are closed.
            self._reason = self._last_complaint()
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        """Take a line of `pipelines.demo.build`: the manifest's path, then names with their numbers."""
        with self._changed:
            if self._manifest is None:
                self._manifest = Path(line)
            else:
                name, count, whence = line.split()
                number, _, total = count.partition("/")
                self._built.add(name)
                if whence == "built":
                    self._tell(name, int(number), int(total))
            self._changed.notify_all()
