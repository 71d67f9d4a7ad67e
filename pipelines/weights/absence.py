"""What weights.yaml names and is not here, or not whole: the reason, and what mends it. Torch-free.

Nothing large is read: a file counts as it was pulled while it has the size of the lock. Whoever opens it
compares more.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipelines.messages import Absent
from pipelines.weights.entries import Source
from pipelines.weights.header import Unrecognised, read_header
from pipelines.weights.loaded import LOADED_FOLDER
from pipelines.weights.lock import LOCK_NAME, Lock, LockedRepository, read_lock
from pipelines.weights.manifest import Manifest
from pipelines.weights.repositories import folder as repository_folder

OPTIONAL_PARTS = ("safety_checker", "annotator")
"""The parts without which a pipeline draws: only a request that needs such a part fails without it."""

NOT_PULLED = "its weights are not here"
DAMAGED_LOCK = f"{LOCK_NAME}, which says what was pulled, is damaged"


def absent(manifest: Manifest, weights: Path) -> list[Absent]:
    """All that a manifest names and that is not here, or not whole, in the manifest's order."""
    lock = _lock_or_none(weights)
    found: list[Absent] = []
    for name, kind, also, part, source in _sources(manifest):
        named = {entry.name for entry in found if entry.part is None or entry.part == part}
        if name in named:
            continue
        if (reason := _problem(manifest, source, weights, lock)) is not None:
            mended = remedy(name, source, weights, damaged_lock=lock is None)
            found.append(Absent(name, kind, reason, mended, part, also))
    return found


def remedy(name: str, source: Source, weights: Path, *, damaged_lock: bool = False) -> str:
    """What an operator does when a source is missing or damaged, as the rest of a sentence."""
    if source.hub is not None:
        first = f"delete {LOCK_NAME} and " if damaged_lock else ""
        token = " (gated: it needs HF_TOKEN)" if source.gated else ""
        return f"{first}run `understudy weights pull {shlex.quote(name)}`{token}"
    if _is_loaded(source, weights):
        return f"call delete_model for {name}, then load_model"
    if source.dummy is not None:
        return f"correct the entry of {name} in weights.yaml"
    what = "file" if source.file is not None else "folder"
    given = source.file or source.folder
    if given is not None and given.is_absolute():
        return f"put its {what} back to where it was, or run `understudy models rm {shlex.quote(name)}`"
    return f"put a whole {what} where the entry of {name} in weights.yaml says, or correct the entry"


def fingerprint(manifest: Manifest, name: str, weights: Path) -> tuple[object, ...]:
    """A value that changes when any file of what has that name does, or its entry."""
    seen: list[object] = []
    lock = _lock_or_none(weights)
    for owner, _, _, _, source in _sources(manifest):
        if owner != name:
            continue
        seen.append(source)
        if source.hub is not None:
            seen.append(lock.repositories.get(_key(source)) if lock else None)
            path = weights / repository_folder(source.hub, source.revision)
        elif (given := source.folder or source.file) is not None:
            path = manifest.path.parent / given
            if lock is not None and _is_loaded(source, weights):
                seen.append(lock.downloads.get(path.relative_to(weights.absolute()).as_posix()))
        else:
            continue
        seen.extend((file, *_stamp(file)) for file in _files(path) or [path])
    return tuple(seen)


def _sources(manifest: Manifest) -> Iterator[tuple[str, str, tuple[str, ...], str | None, Source]]:
    """Every source of a manifest with name, section and other names of its owner, and its optional part."""
    sections = (
        ("pipelines", manifest.pipelines),
        ("upscalers", manifest.upscalers),
        ("face_restorers", manifest.face_restorers),
    )
    openable = manifest.openable()
    for kind, section in sections:
        for name in section:
            entry = openable[name]
            # Optional parts last: what is missing as a whole is said once.
            for part, source in sorted(entry.parts.items(), key=lambda item: item[0] in OPTIONAL_PARTS):
                yield name, kind, entry.also, part if part in OPTIONAL_PARTS else None, source
    for kind in ("loras", "embeddings", "vaes", "controlnets"):
        for name, entry in getattr(manifest, kind).items():
            yield name, kind, entry.also, None, entry.source
            if (annotator := getattr(entry, "annotator", None)) is not None:
                yield name, kind, entry.also, "annotator", annotator


def _problem(manifest: Manifest, source: Source, weights: Path, lock: Lock | None) -> str | None:
    """What is wrong with a source at a glance; None where nothing is."""
    if source.dummy is not None:
        return None
    if source.hub is not None:
        return DAMAGED_LOCK if lock is None else _pulled_problem(source, weights, lock)
    given = source.folder or source.file
    assert given is not None
    path = manifest.path.parent / given
    if not path.exists():
        return f"its {'file' if source.file is not None else 'folder'} is not there"
    if _is_loaded(source, weights):
        if lock is None:
            return DAMAGED_LOCK
        locked = lock.downloads.get(path.relative_to(weights.absolute()).as_posix())
        if locked is None:
            return "its file is not among those that were loaded"
        if _stamp(path)[0] != locked.size:
            return "its file is not the one that was loaded"
    if path.is_file():
        return _file_problem(path)
    files = _files(path)
    if not files:
        return "its folder is empty"
    # A vocabulary may well be empty; what is parsed is not.
    parsed = [file for file in files if file.suffix in (".safetensors", ".json")]
    return next((problem for file in parsed if (problem := _file_problem(file)) is not None), None)


def _pulled_problem(source: Source, weights: Path, lock: Lock) -> str | None:
    locked = lock.repositories.get(_key(source))
    if locked is None:
        return NOT_PULLED
    origins = {file.origin for file in locked.files.values()}
    if any("*" not in name and name not in origins for name in source.files):
        return NOT_PULLED
    return _folder_problem(weights / locked.folder, locked)


def _folder_problem(folder: Path, locked: LockedRepository) -> str | None:
    present = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    for name, file in locked.files.items():
        if name not in present:
            return "files of its weights are missing"
        if _stamp(present[name])[0] != file.size:
            return "its weights are not the ones that were pulled"
    return None


def _file_problem(path: Path) -> str | None:
    """What is wrong with a single file at a glance."""
    size, mtime_ns = _stamp(path)
    if not size:
        return f"its file {path.name} is empty" if size == 0 else "its file is not there"
    return _cut_off(path, size, mtime_ns) if path.suffix == ".safetensors" else None


@lru_cache(maxsize=4096)
def _cut_off(path: Path, size: int, mtime_ns: int) -> str | None:
    """Whether a .safetensors file is no whole one; cached by size and time."""
    try:
        read_header(path)
    except Unrecognised as error:
        return f"its file {path.name} cannot be used: {error}"
    except OSError:
        return f"its file {path.name} cannot be read"
    return None


def _files(folder: Path) -> list[Path]:
    """The files below a folder, except hidden ones; it may change or go away meanwhile."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(files) if not name.startswith(".")]
    return found


def _stamp(path: Path) -> tuple[int, int]:
    """The size and modification time of a file; -1 for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _lock_or_none(weights: Path) -> Lock | None:
    """The lock; None where it is damaged."""
    path = weights / LOCK_NAME
    return _read_lock(weights, *_stamp(path))


@lru_cache(maxsize=8)
def _read_lock(weights: Path, size: int, mtime_ns: int) -> Lock | None:
    try:
        return read_lock(weights)
    except (ValueError, OSError):
        return None


def _is_loaded(source: Source, weights: Path) -> bool:
    return source.file is not None and source.file.is_relative_to(weights.absolute() / LOADED_FOLDER)


def _key(source: Source) -> str:
    return f"{source.hub}@{source.revision}"
