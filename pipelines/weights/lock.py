"""weights.lock.json: which bytes were pulled from which commit, and whether the files still are those."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipelines.weights.atomic import write_atomically

LOCK_NAME = "weights.lock.json"


class LockedFile(BaseModel):
    """A file as it was written, and what it was made from.

    Attributes:
        origin: the file's name in the repository, or its URL without the query.
        upstream: the hub's name of the original bytes: SHA-256 of a large file, git's blob id of a small one.
        sha256: SHA-256 of the bytes on disk, which a conversion may have made out of the original ones.
        mtime_ns: modification time in nanoseconds; with the size a cheap sign that the file is unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    upstream: str
    sha256: str
    size: int
    mtime_ns: int


class LockedRepository(BaseModel):
    """A repository at one commit; ``files`` are named by their path below ``folder``, in POSIX form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    revision: str
    commit: str
    half: bool
    folder: str
    files: dict[str, LockedFile]


class Lock(BaseModel):
    """All that weights.lock.json says.

    Attributes:
        repositories: the repositories that were pulled, by ``owner/name@revision``.
        downloads: the single files that were loaded from a URL, by their path below the weights folder.
    """

    model_config = ConfigDict(extra="forbid")

    version: int = 1
    repositories: dict[str, LockedRepository] = Field(default_factory=dict)
    downloads: dict[str, LockedFile] = Field(default_factory=dict)


def read_lock(weights: Path) -> Lock:
    """Read the lock of a weights folder; one that is not there yet is empty.

    Raises:
        ValueError: the file is there, but is not a lock.
    """
    path = weights / LOCK_NAME
    return Lock.model_validate_json(path.read_bytes()) if path.exists() else Lock()


def write_lock(weights: Path, lock: Lock) -> None:
    """Replace the lock of a weights folder."""
    write_atomically(weights / LOCK_NAME, lock.model_dump_json(indent=1) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path, *, origin: str, upstream: str) -> LockedFile:
    """Record a file that has just been written, with its hash."""
    status = path.stat()
    return LockedFile(
        origin=origin,
        upstream=upstream,
        sha256=sha256(path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def problems(weights: Path, repository: LockedRepository, *, thorough: bool) -> list[str]:
    """Compare a repository's files with its record; the list has one line for each file that is not right.

    Args:
        thorough: hash every file. Otherwise a file with its recorded size and modification time counts as
            unchanged, and only one whose time differs is hashed: a copied folder has new times and the same
            bytes.
    """
    folder = weights / repository.folder
    present = {path.relative_to(folder).as_posix() for path in _files(folder)}
    found = [
        f"{repository.folder}/{name}: not among the files that were pulled"
        for name in sorted(present - repository.files.keys())
    ]
    for name, locked in sorted(repository.files.items()):
        shown = f"{repository.folder}/{name}"
        if name not in present:
            found.append(f"{shown}: missing")
        elif not _same(folder / name, locked, thorough=thorough):
            found.append(f"{shown}: differs from the file that was pulled")
    return found


def download_problem(weights: Path, name: str, locked: LockedFile, *, thorough: bool) -> str | None:
    """Compare a single file with its record, as `problems` does; None when it is right."""
    path = weights / name
    if not path.is_file():
        return f"{name}: missing"
    same = _same(path, locked, thorough=thorough)
    return None if same else f"{name}: differs from the file that was loaded"


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, except hidden ones such as partial downloads or a desktop's notes."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _same(path: Path, locked: LockedFile, *, thorough: bool) -> bool:
    """Whether a file still has the recorded bytes."""
    status = path.stat()
    if status.st_size != locked.size:
        return False
    if thorough:
        return sha256(path) == locked.sha256
    return (
        status.st_mtime_ns == locked.mtime_ns
        or _sha256_once(path, status.st_size, status.st_mtime_ns) == locked.sha256
    )


@lru_cache(maxsize=4096)
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    """The SHA-256 of a file, cached by its size and time, so that a pipeline opens again without hashing."""
    return sha256(path)


def renew(weights: Path, lock: Lock) -> None:
    """Record the present times of files that were found unchanged, so that opening hashes none of them."""
    before = lock.model_copy(deep=True)
    lock.downloads = _renewed(weights, lock.downloads)
    for key, repository in lock.repositories.items():
        files = _renewed(weights / repository.folder, repository.files)
        lock.repositories[key] = repository.model_copy(update={"files": files})
    if lock != before:
        write_lock(weights, lock)


def _renewed(folder: Path, files: dict[str, LockedFile]) -> dict[str, LockedFile]:
    return {
        name: locked.model_copy(update={"mtime_ns": (folder / name).stat().st_mtime_ns})
        for name, locked in files.items()
    }
