"""Pull what a manifest names from the hub: only what is needed, resumed, checked, written to the lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.weights.formats import REFUSED_PICKLES, VERIFIED_PICKLES
from pipelines.weights.hub import Bar, Corrupted, DiskFull, Hub, NotOnTheHub, PullError, RemoteFile
from pipelines.weights.installed import HOW_TO_INSTALL, engine_missing
from pipelines.weights.lock import LockedFile, LockedRepository, describe, read_lock, write_lock
from pipelines.weights.repositories import Repository, components_of, select

PARTS = ".parts"
"""The folder of partial downloads below the weights folder; each has the hash of its file or URL as name."""


_WRITING = threading.Lock()
"""Held by the thread that writes the lock file: the threads of one pull finish repositories one by one."""


@contextmanager
def one_pull_at_a_time(weights: Path, *, wait: bool = False) -> Generator[None]:
    """Keep a second pull out of the same folder.

    Args:
        wait: wait until the other pull is done, instead of raising.
    Raises:
        PullError: another pull is at work.
    """
    weights.mkdir(parents=True, exist_ok=True)
    with (weights / ".pull").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise PullError("another pull is at work in this weights folder") from error
        yield


def pull(
    hub: Hub,
    repository: Repository,
    weights: Path,
    *,
    upgrade: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> LockedRepository:
    """Bring one repository to what the manifest wants, and write the lock.

    The commit of an earlier pull is kept. Files that are here with the right bytes are not fetched again;
    ones that an earlier pull brought and nobody needs any more are removed.

    Args:
        upgrade: take the commit that the revision names now, not the one of an earlier pull.
        say: called with what happens, in words.
    Raises:
        PullError: the repository could not be pulled; the error says why.
    """
    planned = plan(hub, repository, weights, upgrade=upgrade)
    demand_room([planned], weights)
    say(planned.words)
    for origin in planned.missing:
        planned.fetch(origin)
    return planned.finish(weights)


def plan(hub: Hub, repository: Repository, weights: Path, *, upgrade: bool = False) -> PlannedPull:
    """Find out what is missing of a repository; nothing large is fetched.

    Raises:
        PullError: the repository could not be looked at, or may not be pulled.
    """
    before = read_lock(weights).repositories.get(repository.key)
    commit = before.commit if before is not None and not upgrade else hub.commit(repository)
    known = before.files if before is not None else {}
    planned = PlannedPull(hub, repository, commit, weights / repository.folder, weights / PARTS, known)
    planned.listing = hub.listing(repository, commit)
    planned.chosen = planned.choose()
    planned.missing = {
        origin: stored for origin, stored in planned.chosen.items() if not planned.keep(origin, stored)
    }
    planned.demand_reader()
    return planned


def demand_room(pulls: Sequence[PlannedPull], weights: Path) -> None:
    """Refuse before hours of downloading what would end on a full disk.

    Raises:
        DiskFull: there is less room than is needed for all of them together.
    """
    needed = sum(each.missing_bytes - each.begun_bytes for each in pulls)
    free = shutil.disk_usage(weights).free
    if needed > free:
        one = pulls[0].repository.hub if len(pulls) == 1 else "All of it"
        raise DiskFull(f"{one} needs {sized(needed)} more, and {sized(free)} are free.")


@dataclass(slots=True)
class PlannedPull:
    """A repository that is to be pulled, or is being pulled.

    Attributes:
        folder: the folder of its files.
        parts: the folder of partial downloads.
        known: the files of the lock before this pull, by their names on disk.
        listing: the files that the repository has at ``commit``.
        chosen: the files that are needed: the name in the repository -> the name on disk before conversion.
        missing: those of them that are not here.
        files: the files that are here now, by their names on disk.
    """

    hub: Hub
    repository: Repository
    commit: str
    folder: Path
    parts: Path
    known: dict[str, LockedFile]
    listing: dict[str, RemoteFile] = field(default_factory=dict[str, RemoteFile])
    chosen: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, LockedFile] = field(default_factory=dict[str, LockedFile])

    @property
    def words(self) -> str:
        """What is going to be done, in words."""
        size = f" ({sized(self.missing_bytes)})" if self.missing else ""
        return (
            f"{self.repository.hub} at {self.commit[:10]}: {len(self.chosen)} files,"
            f" {len(self.missing)} to fetch{size}"
        )

    @property
    def missing_bytes(self) -> int:
        """The bytes of the missing files."""
        return sum(self.listing[origin].size for origin in self.missing)

    @property
    def begun_bytes(self) -> int:
        """The bytes that an earlier pull left of the missing files."""
        return sum(self.begun(origin) for origin in self.missing)

    def begun(self, origin: str) -> int:
        """The bytes that are here of a missing file."""
        part = self.parts / self.listing[origin].upstream
        return part.stat().st_size if part.exists() else 0

    def choose(self) -> dict[str, str]:
        """The files that are needed: the name in the repository -> the name on disk before conversion."""
        components = None
        if "model_index.json" in self.listing and not self.repository.files:
            if not self.keep("model_index.json", "model_index.json"):
                self._bring("model_index.json", "model_index.json", None)
            index = json.loads((self.folder / "model_index.json").read_text())
            components = components_of(index)
        chosen = select(self.listing.keys(), self.repository, components)
        if not chosen:
            raise NotOnTheHub(f"{self.repository.hub} has none of the files that the manifest asks for.")
        for name in chosen:
            if name.endswith(REFUSED_PICKLES):
                raise PullError(
                    f"{self.repository.hub}: {name} is a pickle, which can run code; name a .safetensors."
                )
        for name, expected in self.repository.sha256:
            if name in chosen and self.listing[name].upstream != expected:
                raise PullError(
                    f"{self.repository.hub}: {name} is not the file that weights.yaml names by its SHA-256."
                )
        return chosen

    def keep(self, origin: str, stored: str) -> bool:
        """Whether the file is here already; one that is becomes part of ``files``."""
        name = converted_name(stored)
        path = self.folder / name
        upstream = self.listing[origin].upstream
        if not path.is_file():
            return False
        known = self.known.get(name)
        status = path.stat()
        if known is not None and (known.upstream, known.size, known.mtime_ns) == (
            upstream,
            status.st_size,
            status.st_mtime_ns,
        ):
            self.files[name] = known
            return True
        if name != stored or status.st_size != self.listing[origin].size or not _matches(path, upstream):
            return False
        self.files[name] = describe(path, origin=origin, upstream=upstream)
        return True

    def fetch(self, origin: str, bar: Bar | None = None) -> None:
        """Bring one missing file, check it by the hub's hash, convert it if need be, put it in its place.

        Raises:
            PullError: it could not be brought; what came of it is kept.
        """
        self._bring(origin, self.missing[origin], bar)

    def finish(self, weights: Path) -> LockedRepository:
        """Write the lock when all files are here, and remove those that nobody needs any more."""
        for stale in self.known.keys() - self.files.keys():
            (self.folder / stale).unlink(missing_ok=True)
        locked = LockedRepository(
            hub=self.repository.hub,
            revision=self.repository.revision,
            commit=self.commit,
            half=self.repository.half,
            folder=self.repository.folder,
            files=dict(sorted(self.files.items())),
        )
        with _WRITING:
            lock = read_lock(weights)
            lock.repositories[self.repository.key] = locked
            lock.repositories = dict(sorted(lock.repositories.items()))
            write_lock(weights, lock)
        return locked

    def _bring(self, origin: str, stored: str, bar: Bar | None) -> None:
        remote = self.listing[origin]
        partial = prepare_partial(self.parts, remote)
        self.hub.fetch(self.repository, self.commit, origin, remote, partial, bar)
        if not _matches(partial, remote.upstream):
            partial.unlink()
            raise Corrupted(
                f"{self.repository.hub}: {origin} arrived with other bytes than the hub announced; they were "
                f"thrown away; pull again."
            )
        name = converted_name(stored)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != stored or name.endswith(VERIFIED_PICKLES):
            self._convert(partial, path, origin)
        else:
            partial.replace(path)
        self.files[name] = describe(path, origin=origin, upstream=remote.upstream)

    def _convert(self, partial: Path, path: Path, origin: str) -> None:
        """Put a file that can run code into its place only as bare tensors."""
        from pipelines.weights import conversion

        try:
            if origin.endswith(VERIFIED_PICKLES):
                conversion.demand_tensors(partial)
                partial.replace(path)
            elif origin.endswith(".json"):
                conversion.rename_shards(partial, path, converted_name)
            else:
                conversion.to_safetensors(partial, path)
        except conversion.NotTensors as error:
            raise Corrupted(
                f"{self.repository.hub}: {origin} holds more than tensors and is refused."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def demand_reader(self) -> None:
        """Refuse before any download what nothing here can look into: torch alone reads pickles.

        Raises:
            PullError
        """
        pickles = [name for name in self.missing if name.endswith((".bin", *VERIFIED_PICKLES))]
        if pickles and engine_missing():
            raise PullError(
                f"{self.repository.hub}: {pickles[0]} is a pickle, of which only torch can tell whether it "
                f"holds more than tensors. Pull it where an engine is installed ({HOW_TO_INSTALL})."
            )


def prepare_partial(parts: Path, remote: RemoteFile) -> Path:
    """The file that has or will have the first bytes of a remote file, in a folder that exists.

    One that is too large to be the beginning of the remote file is removed.
    """
    parts.mkdir(parents=True, exist_ok=True)
    partial = parts / remote.upstream
    if partial.exists() and partial.stat().st_size > remote.size:
        partial.unlink()
    return partial


def sized(size: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def converted_name(stored: str) -> str:
    """The name of a file after conversion: ``.bin`` weights and their index become safetensors."""
    folder, slash, name = stored.rpartition("/")
    if name.endswith(".bin") or ".bin.index" in name:
        name = name.replace(".bin", ".safetensors")
        if name.startswith("pytorch_model"):
            name = name.removeprefix("pytorch_")
    return folder + slash + name


def _matches(path: Path, upstream: str) -> bool:
    """Whether a file's bytes are the ones that the hub names by SHA-256, or by git's blob id."""
    if len(upstream) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == upstream
