"""Bring a file from a URL or a repository of the hub into the weights folder."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import httpx

import pipelines
from pipelines.weights.downloads import PARTS, one_pull_at_a_time, sized
from pipelines.weights.fetch_process import (
    DownloadProgress,
    Fetched,
    FetchRequest,
    Line,
    Refused,
    loaded_entry,
    unwritable,
)
from pipelines.weights.formats import NO_PICKLES
from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.loaded import LOADED_FOLDER
from pipelines.weights.lock import describe, read_lock, write_lock
from pipelines.weights.usable import recognise_file
from server.engines.devices import devices
from server.outside.public_http import MAX_REDIRECTS, REDIRECTS, NotReached, PublicHTTP
from server.settings import Settings

MAX_DOWNLOAD_S = 86_400.0
"""The most seconds that one transfer may take."""

MAX_ATTEMPTS = 5
"""The most transfers for one file: the first, and those that take up one that broke off."""

_ROOT = Path(pipelines.__path__[0]).parent
"""The folder in which a process of its own finds the packages of this one."""

RANGE_NOT_SATISFIABLE = 416
"""The status with which a server answers a range that begins at the end of its file."""

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""The first bytes of a pickle: those of torch's zip file, or of a bare pickle from protocol 2 on."""


class NotLoaded(Exception):
    """Something was not loaded; ``str(error)`` says why, in the caller's words."""


class _BrokenOff(Exception):
    """A transfer ended early; another load of the same URL can take it up."""


class Incoming:
    """Downloads that resume, are bounded and checked, and end in the lock."""

    def __init__(self, settings: Settings, public_http: PublicHTTP) -> None:
        self._settings = settings
        self._weights = settings.weights
        self._http = public_http
        self._on_cpu = set(devices(settings.devices)) == {"cpu"}
        self._max_bytes = int(settings.max_load_gb * 1e9)

    async def file(
        self,
        name: str,
        url: str,
        family: StableDiffusionFamily | None,
        progress: Callable[[int, int], None],
    ) -> Fetched:
        """Bring one .safetensors file below the weights folder and into the lock.

        Args:
            family: the family of a file whose tensors do not tell it.
            progress: called with the bytes that are here, and all that there are.
        Raises:
            NotLoaded: the file could not be fetched or stored.
            Unrecognised: the file is nothing with which this server can draw.
        """
        partial = self._weights / PARTS / hashlib.sha256(url.encode()).hexdigest()
        with _storing():
            partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            await self._download(url, partial, progress)
            recognised = await asyncio.to_thread(recognise_file, partial)
            stored = f"{LOADED_FOLDER}/{name}.safetensors"
            await asyncio.to_thread(self._keep, partial, stored, url.partition("?")[0])
        except (NotLoaded, Unrecognised):
            _remove(partial)
            raise
        except _BrokenOff as error:  # what came is kept: the next load of this URL goes on from there
            raise NotLoaded(f"it could not be fetched: {error}") from error
        source: dict[str, object] = {"file": stored}
        known = recognised.family or family or "sd15"
        if recognised.kind == "checkpoint":
            source["config"] = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}[known]
        entry = loaded_entry(recognised.kind, known, source, on_cpu=self._on_cpu)
        return Fetched(kind=recognised.kind, entry=entry)

    async def repository(
        self,
        name: str,
        hub: str,
        revision: str,
        family: StableDiffusionFamily | None,
        progress: Callable[[int, int], None],
    ) -> Fetched:
        """Bring a repository of the hub, in a process of its own that ends with this call.

        Raises:
            NotLoaded: the repository could not be fetched or stored, or this server cannot draw with it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pipelines.weights.fetch_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        wanted = FetchRequest(
            name=name,
            hub=hub,
            revision=revision,
            manifest=self._settings.manifest.absolute(),
            weights=self._weights.absolute(),
            on_cpu=self._on_cpu,
            max_bytes=self._max_bytes,
            family=family,
        )
        try:
            process.stdin.write(wanted.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            async for text in process.stdout:
                match Line.validate_json(text):
                    case DownloadProgress(done=done, total=total):
                        progress(done, total)
                    case Refused(problem=problem):
                        raise NotLoaded(problem)
                    case Fetched() as fetched:
                        return fetched
            raise NotLoaded("the download ended unexpectedly; the server's log has the cause")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _download(self, url: str, partial: Path, progress: Callable[[int, int], None]) -> None:
        """Append to a partial file what is missing of it.

        Raises:
            NotLoaded: the file is a pickle, too large, or more than the disk has room for.
            _BrokenOff: the transfer broke off, and nothing came when it was taken up again.
        """
        for attempt in range(MAX_ATTEMPTS):
            before = _size(partial)
            try:
                return await self._transfer(url, partial, progress)
            except NotReached as error:
                if _size(partial) == before or attempt == MAX_ATTEMPTS - 1:
                    raise _BrokenOff(str(error)) from error
        raise AssertionError("the last attempt ends")

    async def _transfer(self, url: str, partial: Path, progress: Callable[[int, int], None]) -> None:
        target = self._http.read(url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._http.request(
                "GET",
                target,
                headers=_resuming(partial),
                timeout_s=MAX_DOWNLOAD_S,
                stalled_s=self._settings.load_stalled_s,
            ) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    return await self._receive(response, partial, progress)
                target = target.join(response.headers["location"])
        raise NotLoaded(f"it could not be fetched: more than {MAX_REDIRECTS} redirects")

    async def _receive(
        self, response: httpx.Response, partial: Path, progress: Callable[[int, int], None]
    ) -> None:
        if response.status_code == RANGE_NOT_SATISFIABLE:
            _remove(partial)
            raise NotReached("the server has no more than what came already")
        if response.status_code not in (200, 206):
            raise NotReached(f"the server answered {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise NotLoaded("it could not be fetched: the server compressed the answer")
        done = _size(partial) if response.status_code == 206 else 0
        validator = response.headers.get("etag", "")
        if done == 0:
            with _storing():
                _tag(partial).write_text("" if validator.startswith("W/") else validator)
        stated = response.headers.get("content-length", "")
        total = done + int(stated) if stated.isdecimal() else 0
        self._demand_room(total or done, total - done)
        with _storing():
            file = partial.open("ab" if done else "wb", buffering=0)
        with file:
            async for chunk in response.aiter_raw():
                if done == 0 and chunk.startswith(_PICKLE_STARTS):
                    raise NotLoaded(f"it {NO_PICKLES}")
                done += len(chunk)
                self._demand_room(done, 0)
                _append(file, chunk)
                progress(done, total)

    def _demand_room(self, size: int, missing: int) -> None:
        if size > self._max_bytes:
            bound = self._settings.max_load_gb
            raise NotLoaded(f"it is larger than {bound:g} GB, and this server loads no more at a time")
        free = shutil.disk_usage(self._weights).free
        if missing > free:
            raise NotLoaded(f"it needs {sized(missing)} more on the disk, and {sized(free)} are free")

    def _keep(self, partial: Path, stored: str, origin: str) -> None:
        """Move a file to its place and into the lock; a file that cannot be recorded is removed. Blocking."""
        path = self._weights / stored
        with _storing(), one_pull_at_a_time(self._weights, wait=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(path)
            _tag(partial).unlink(missing_ok=True)
            try:
                lock = read_lock(self._weights)
                file = describe(path, origin=origin, upstream="")
                lock.downloads[stored] = file.model_copy(update={"upstream": file.sha256})
                write_lock(self._weights, lock)
            except OSError:
                path.unlink()
                raise


@contextmanager
def _storing() -> Generator[None]:
    """Turn a failure of the disk into an answer to the caller.

    Raises:
        NotLoaded: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise NotLoaded(unwritable(error)) from error


def _append(file: FileIO, chunk: bytes) -> None:
    with _storing():
        while chunk:  # a disk that is nearly full takes a part of it first
            chunk = chunk[file.write(chunk) :]


def _resuming(partial: Path) -> dict[str, str]:
    """The headers that ask for the rest of a file if it is still the same; none if that cannot be told."""
    tag = _tag(partial)
    validator = tag.read_text() if tag.exists() else ""
    size = _size(partial)
    return {"Range": f"bytes={size}-", "If-Range": validator} if size and validator else {}


def _tag(partial: Path) -> Path:
    """The file beside a partial one that has the ETag of the answer from which it came."""
    return partial.with_suffix(".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _remove(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _tag(partial).unlink(missing_ok=True)
