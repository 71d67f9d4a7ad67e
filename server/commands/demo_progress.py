"""What the demo shows while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


class DemoProgress:
    """How much is built and drawn. Calls may come from several threads.

    Args:
        pages: how many pictures are drawn.
    """

    def __init__(self, console: Console, pages: int) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._pages = pages
        self._building = self._bars.add_task("building small checkpoints", total=None, visible=False)
        self._drawing = self._bars.add_task("starting the engine", total=pages)

    def __enter__(self) -> DemoProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def built(self, name: str, number: int, total: int) -> None:
        """Show that a small checkpoint is there."""
        self._bars.update(self._building, completed=number, total=total, visible=number < total)
        if not self._console.is_terminal:
            self._say(f"built {name} ({number} of {total})")

    def drawing(self, page: str) -> None:
        """Show which page's picture is drawn now."""
        self._bars.update(self._drawing, description=f"drawing through {page}")

    def drew(self, path: Path, number: int, seconds: float) -> None:
        """Show that a picture is there."""
        self._bars.update(self._drawing, completed=number)
        self._say(f"drew {path} in {seconds:.1f} s ({number} of {self._pages})")

    def _say(self, line: str) -> None:
        self._console.print(escape(line), highlight=False, soft_wrap=True)
