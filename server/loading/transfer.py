"""One file from a URL into a partial file: resumed where that is safe, bounded, and looked at as it comes."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import FileIO

import httpx

from pipelines.weights.beginnings import ENOUGH, foreign, length_of_header, whole_size
from pipelines.weights.downloads import sized
from pipelines.weights.fetch_process import unwritable
from server.loading.partial import Partial, Version, total_of
from server.outside.public_http import MAX_REDIRECTS, REDIRECTS, NotReached, PublicHTTP, is_compressed
from server.settings import Settings

MAX_DOWNLOAD_S = 86_400.0
"""The most seconds that one transfer may take."""

MAX_ATTEMPTS = 5
"""The most transfers for one file: the first, and those that take up one that broke off."""

RANGE_NOT_SATISFIABLE = 416
"""The status with which a server answers a range that begins at the end of its file."""

_TEXTS = ("text/html", "application/xhtml", "application/json", "application/xml", "text/xml")
"""The types of pages and errors, which hosts also send with the status of success."""

_CLOSED = (401, 403)
"""The statuses of what is not open to everybody, or not any more."""


CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "civitai.green")
"""The hosts of Civitai, which takes its token as the hub does (documented for its API and for downloads)."""

CIVITAI_VARIABLES = ("CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY")
"""The variables that have the token: the first one in Civitai's own documentation, the others in clients."""


class NotLoaded(Exception):
    """Something was not loaded; ``str(error)`` says why, in the caller's words."""


class BrokenOff(Exception):
    """A transfer ended early; another load of the same URL can take it up."""


class Transfer:
    """The download of one file, in as many transfers as it takes.

    Every transfer asks the caller's URL first, so that redirects to signed URLs are signed anew.

    Args:
        progress: called with the bytes that are here, and all that there are.
    """

    def __init__(
        self,
        settings: Settings,
        public_http: PublicHTTP,
        url: str,
        partial: Partial,
        progress: Callable[[int, int], None],
    ) -> None:
        self._settings, self._http = settings, public_http
        self._url, self._partial, self._progress = url, partial, progress
        self._max_bytes = int(settings.max_load_gb * 1e9)
        self._whole: int | None = None

    async def run(self) -> None:
        """Bring what is missing of the file.

        Raises:
            NotLoaded: it is no .safetensors file, too large, or more than the disk has room for.
            BrokenOff: the transfer broke off, and nothing came when it was taken up again.
        """
        for attempt in range(MAX_ATTEMPTS):
            before = self._partial.size
            try:
                return await self._attempt()
            except NotReached as error:
                here = self._partial.size
                if here and here == self._whole:
                    return None  # the server announced more than the file has
                if here == before or attempt == MAX_ATTEMPTS - 1:
                    raise BrokenOff(str(error)) from error
        raise AssertionError("the last attempt ends")

    async def _attempt(self) -> None:
        target = self._http.read(self._url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._http.request(
                "GET",
                target,
                headers=self._partial.headers() | authorization(target),
                timeout_s=MAX_DOWNLOAD_S,
                stalled_s=self._settings.load_stalled_s,
            ) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    return await self._receive(response)
                target = target.join(response.headers["location"])
        raise NotLoaded(f"it could not be fetched: more than {MAX_REDIRECTS} redirects")

    async def _receive(self, response: httpx.Response) -> None:
        self._demand_success(response)
        done = self._partial.size if response.status_code == 206 else 0
        total = total_of(response, done)
        self._demand_room(total or done, total - done)
        if done == 0:
            self._whole = None
            with storing():
                self._partial.begin(Version.of(response, total))
        with storing():
            file = self._partial.path.open("ab", buffering=0)
        with file:
            async for chunk in response.aiter_raw():
                done += len(chunk)
                self._demand_room(done, 0)
                _append(file, chunk)
                await self._look(done, total)
                self._progress(done, total)
        await self._look(done, total, ended=True)
        if self._whole is not None and done < self._whole:
            raise NotReached(f"the answer ended after {sized(done)} of {sized(self._whole)}")

    def _demand_success(self, response: httpx.Response) -> None:
        """Look whether an answer has a file, or the rest of the one that has begun."""
        status, here = response.status_code, self._partial.size
        if status == RANGE_NOT_SATISFIABLE:
            self._partial.remove()
            raise NotReached("the server has no more than what came already")
        if status == 206 and not self._partial.continues(response):
            self._partial.remove()
            raise NotReached("the file has changed since its beginning came, or the server sent another part")
        if status not in (200, 206):
            raise NotReached(_said(response, here, self._partial.version.total))
        if here and status == 200 and response.headers.get("content-type", "").startswith(_TEXTS):
            raise NotReached(f"a page came instead of the rest, after {sized(here)}; what came is kept")
        if is_compressed(response):
            raise NotLoaded("it could not be fetched: the server compressed the answer")

    async def _look(self, done: int, total: int, *, ended: bool = False) -> None:
        """Refuse what cannot be a whole .safetensors file, as soon as that can be seen.

        Raises:
            NotLoaded
        """
        if self._whole is None and (ended or done >= ENOUGH):
            with self._partial.path.open("rb") as file:
                start = file.read(ENOUGH)
            if (words := foreign(start)) is not None:
                raise NotLoaded(f"it {words}")
            if done < 8 + (length_of_header(start) or 0):
                return
            try:
                self._whole = await asyncio.to_thread(whole_size, self._partial.path)
            except ValueError as error:
                raise NotLoaded(f"it {error}") from error
        whole = self._whole
        if whole is None:
            return
        if total and total < whole:
            raise NotLoaded(f"it is cut off: the server has {total} bytes, and its tensors need {whole}")
        if done > whole:
            raise NotLoaded(f"it has something after its tensors, which end at {whole} bytes")

    def _demand_room(self, size: int, missing: int) -> None:
        if size > self._max_bytes:
            bound = self._settings.max_load_gb
            raise NotLoaded(f"it is larger than {bound:g} GB, and this server loads no more at a time")
        free = shutil.disk_usage(self._settings.weights).free
        if missing > free:
            raise NotLoaded(f"it needs {sized(missing)} more on the disk, and {sized(free)} are free")


@contextmanager
def storing() -> Generator[None]:
    """Turn a failure of the disk into an answer to the caller.

    Raises:
        NotLoaded: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise NotLoaded(unwritable(error)) from error


def authorization(url: httpx.URL) -> dict[str, str]:
    """The operator's token for the site that it is of; a redirect to another host never gets it."""
    hub = httpx.URL(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if (url.scheme, url.host, url.port) == (hub.scheme, hub.host, hub.port):
        token = os.environ.get("HF_TOKEN")
    elif url.scheme == "https" and url.port is None and url.host in CIVITAI_HOSTS:
        token = next((os.environ[name] for name in CIVITAI_VARIABLES if os.environ.get(name)), None)
    else:
        token = None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _said(response: httpx.Response, here: int, total: int) -> str:
    """A status that brings no file, in words that tell what to do."""
    status = response.status_code
    text = f"the server answered {status}"
    if here:
        text += f" when {sized(here)} of {sized(total) if total else 'it'} had come"
    if status in _CLOSED and here:
        return f"{text}: the address has expired; what came is kept for a new address of the same file"
    if status in _CLOSED:
        return (
            f"{text}: it wants a login or an agreement to terms, or the address has expired; give an address"
            " that needs neither. The environment's HF_TOKEN is sent to the hub, its CIVITAI_TOKEN to Civitai"
        )
    if status == 429 and "retry-after" in response.headers:
        return f"{text}, too many requests; try again after {response.headers['retry-after']}"
    return text


def _append(file: FileIO, chunk: bytes) -> None:
    with storing():
        while chunk:  # a disk that is nearly full takes a part of it first
            chunk = chunk[file.write(chunk) :]
