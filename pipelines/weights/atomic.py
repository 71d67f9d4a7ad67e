"""Replace a file in one step, so that no reader ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a text file, or leave the one that is there as it is.

    Args:
        mode: permissions of the file, set before anything is in it. None leaves them to the umask.
    Raises:
        OSError: the file cannot be written.
    """
    # Two processes may write the same file; each has its own file beside it.
    with replacing(path, path.with_name(f".{path.name}.{os.getpid()}")) as aside:
        if mode is not None:
            aside.touch(mode=mode)
        aside.write_text(text)


@contextmanager
def replacing(path: Path, aside: Path) -> Generator[Path]:
    """Let ``aside`` take the place of ``path`` when the block ends, or remove it when the block fails.

    Args:
        aside: another file in the same folder, which the block writes.
    """
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
