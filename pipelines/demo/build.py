"""Build the small checkpoints once, one after the other, and keep them."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from pipelines import checkpoints as opening
from pipelines import prompts
from pipelines.demo import checkpoints, world

_BUILDERS = (
    "sd15", "safety_checker", "kandinsky22", "kolors", "sd3", "sdxl", "controlnets", "language", "upscaler",
    "face_restorer",
)  # fmt: skip
"""Modules of `checkpoints`; ``build(folder: Path)`` of each writes the folders that weights.yaml names.

The demo draws with the first ones while the others are still being built."""

_MANIFEST = Path(__file__).with_name("weights.yaml")

_BESIDES = (Path(opening.__path__[0]) / "tokenizers.py", Path(prompts.__path__[0]) / "languages.py")
"""The files outside the demo of which the checkpoints are made: tokenizers, and the languages' codes, which
are tokens of the small translator."""

_DONE = ".built"
"""The folder of what is built: one file for each builder, which names what the builder has written."""


def ensure(cache: Path) -> Path:
    """Build what is missing under ``cache``; return the path of a manifest whose folders exist."""
    folder = place(cache)
    for _ in build_missing(folder, builders()):
        pass
    return folder / _MANIFEST.name


def place(cache: Path) -> Path:
    """The folder of the checkpoints under ``cache``. Its manifest is there, whether or not they are built."""
    # The number of the layout on disk; raise it to have everything built anew.
    folder = cache / f"demo-{_digest(b'3', sources())}"
    manifest = folder / _MANIFEST.name
    if not manifest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as draft:
            draft.write(_MANIFEST.read_bytes())
        Path(draft.name).chmod(0o644)
        Path(draft.name).replace(manifest)
    return folder


def builders() -> dict[str, Callable[[Path], object]]:
    """What builds each checkpoint, in the order in which they are built."""
    return {name: partial(_build, name) for name in _BUILDERS}


def _build(name: str, folder: Path) -> None:
    import_module(f"pipelines.demo.checkpoints.{name}").build(folder)


def build_missing(folder: Path, builders: Mapping[str, Callable[[Path], object]]) -> Iterator[str]:
    """Fill a folder, and yield the name of each builder as soon as what it writes is there.

    Safe against a kill, after which the next call goes on where this one was, and against a second process,
    which waits. What a builder writes appears when it is complete; a builder finds what earlier ones wrote.
    """
    done = folder / _DONE
    if all((done / name).exists() for name in builders):
        yield from builders  # without the lock, for a folder that cannot be written
        return
    done.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(folder)
        for name, build in builders.items():
            if not (done / name).exists():
                _build_aside(folder, build, done / name)
            yield name


def _build_aside(folder: Path, build: Callable[[Path], object], done: Path) -> None:
    """Run one builder beside the folder, move what it has written into it, and write that down."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".aside-") as name:
        aside = Path(name)
        for earlier in _written(folder):
            (aside / earlier).symlink_to(folder.absolute() / earlier)
        build(aside)
        made = [path for path in aside.iterdir() if not path.is_symlink()]
        for path in made:
            path.rename(folder / path.name)
    draft = done.with_name(f".{done.name}")
    draft.write_text("".join(f"{path.name}\n" for path in made))
    draft.replace(done)


def _written(folder: Path) -> set[str]:
    """The names in the folder of what builders have written completely."""
    records = [path for path in (folder / _DONE).iterdir() if not path.name.startswith(".")]
    return {name for record in records for name in record.read_text().splitlines()}


def _sweep(folder: Path) -> None:
    """Remove what a builder left that was killed; whoever calls has the lock, so none is at work."""
    kept = {*_written(folder), _MANIFEST.name, _DONE, ".lock"}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sources() -> list[Path]:
    """The files that checkpoints are made of: after a change of one of them all are built anew."""
    modules = (path for room in (checkpoints, world) for path in Path(room.__path__[0]).glob("*.py"))
    weights = _MANIFEST.with_name("weights").glob("*.safetensors")
    return [*modules, *_BESIDES, _MANIFEST, *weights]


def built_once(cache: Path, name: str, sources: Iterable[Path], build: Callable[[Path], object]) -> Path:
    """A folder under ``cache`` that ``build`` has filled, named by the contents of ``sources``.

    Safe against a kill and against a second process: everything is built aside and renamed at the end.
    """
    finished = cache / f"{name}-{_digest(b'2', sources)}"
    if not finished.exists():
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        build(aside)
        try:
            aside.rename(finished)
        except OSError:
            if not finished.exists():
                raise
            shutil.rmtree(aside)
    return finished


def _digest(layout: bytes, sources: Iterable[Path]) -> str:
    digest = hashlib.sha256(layout)
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def main(cache: Path) -> None:
    """Print the manifest's path, then for each checkpoint that is there ``NAME 1/10 built`` or ``kept``."""
    try:
        folder = place(cache)
        print(folder / _MANIFEST.name, flush=True)
        # Not at the top: it takes seconds, in which the demo's server starts already.
        from transformers.utils import logging

        logging.disable_progress_bar()
        work = builders()
        kept = {name for name in work if (folder / _DONE / name).exists()}
        for number, name in enumerate(build_missing(folder, work), 1):
            print(name, f"{number}/{len(work)}", "kept" if name in kept else "built", flush=True)
    except OSError as error:
        sys.exit(f"The small checkpoints cannot be written to {cache}: {error.strerror or error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
