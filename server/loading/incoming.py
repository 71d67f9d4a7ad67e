"""Bring a file from a URL or a repository of the hub into the weights folder."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pipelines
from pipelines.weights.downloads import PARTS, one_pull_at_a_time
from pipelines.weights.fetch_process import (
    DownloadProgress,
    Fetched,
    FetchRequest,
    Line,
    Refused,
    loaded_entry,
)
from pipelines.weights.header import Unrecognised
from pipelines.weights.inspection import inspect_file
from pipelines.weights.kinds import Precision, StableDiffusionFamily
from pipelines.weights.loaded import LOADED_FOLDER
from pipelines.weights.lock import describe, read_lock, write_lock
from server.engines.devices import devices
from server.loading.partial import Partial
from server.loading.transfer import BrokenOff, NotLoaded, Transfer, storing
from server.outside.public_http import PublicHTTP
from server.settings import Settings

_ROOT = Path(pipelines.__path__[0]).parent
"""The folder in which a process of its own finds the packages of this one."""

_XL = re.compile(r"(?<![a-z])(sd[ ._-]?)?xl(?![a-z])", re.IGNORECASE)
"""The letters XL as a word of their own, or behind SD, in a name or an address."""


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
        precision: Precision | None,
        progress: Callable[[int, int], None],
    ) -> Fetched:
        """Bring one .safetensors file below the weights folder and into the lock.

        Args:
            family: the family of a file whose tensors do not tell it.
            precision: the precision in which a checkpoint is to be drawn with; None: the server's choice.
            progress: called with the bytes that are here, and all that there are.
        Raises:
            NotLoaded: the file could not be fetched or stored.
            Unrecognised: the file is nothing with which this server can draw.
        """
        partial = self._partial(url)
        with storing():
            partial.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            await Transfer(self._settings, self._http, url, partial, progress).run()
            found = await asyncio.to_thread(inspect_file, partial.path, self._settings.manifest)
            stored = f"{LOADED_FOLDER}/{name}.safetensors"
            await asyncio.to_thread(self._keep, partial, stored, url.partition("?")[0])
        except (NotLoaded, Unrecognised):
            partial.remove()
            raise
        except BrokenOff as error:  # what came is kept: the next load of this URL goes on from there
            raise NotLoaded(f"it could not be fetched: {error}") from error
        source: dict[str, object] = {"file": stored}
        known, warnings = found.family or family, tuple[str, ...]()
        if known is None:
            known = family_by_words(name, url)
            warnings = (f"its tensors do not tell its family, and it is taken for one of {known}",)
        if found.config is not None:
            source["config"] = found.config
        entry = loaded_entry(found.kind, known, source, on_cpu=self._on_cpu, precision=precision)
        return Fetched(kind=found.kind, entry=entry, warnings=warnings)

    async def repository(
        self,
        name: str,
        hub: str,
        revision: str,
        family: StableDiffusionFamily | None,
        precision: Precision | None,
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
            precision=precision,
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

    def forget(self, url: str) -> None:
        """Remove what came of a file that is not wanted any more."""
        self._partial(url).remove()

    def _partial(self, url: str) -> Partial:
        return Partial(self._weights / PARTS, url)

    def _keep(self, partial: Partial, stored: str, origin: str) -> None:
        """Move a file to its place and into the lock; a file that cannot be recorded is removed. Blocking."""
        path = self._weights / stored
        with storing(), one_pull_at_a_time(self._weights, wait=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.move_to(path)
            try:
                lock = read_lock(self._weights)
                file = describe(path, origin=origin, upstream="")
                lock.downloads[stored] = file.model_copy(update={"upstream": file.sha256})
                write_lock(self._weights, lock)
            except OSError:
                path.unlink()
                raise


def family_by_words(*texts: str) -> StableDiffusionFamily:
    """The family that names and addresses speak of, where nothing else tells it: SD1.5 unless of XL."""
    return "sdxl" if any(_XL.search(unquote(text)) for text in texts) else "sd15"
