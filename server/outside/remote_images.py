"""The pictures that callers name by URL, fetched within limits."""

from __future__ import annotations

import asyncio
import ssl

import httpx

from server.outside.public_http import (
    MAX_REDIRECTS,
    REDIRECTS,
    NotReached,
    PublicHTTP,
    Resolver,
    is_compressed,
)
from server.settings import Settings


class NotFetched(Exception):
    """A picture could not be had; the text belongs behind the name of the field that held its URL.

    It names no address that the caller did not write.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"could not be fetched: {reason}")


class TooLargeToFetch(Exception):
    """A picture has more bytes than allowed; the text belongs behind the name of the field with its URL."""

    def __init__(self, max_image_mb: float) -> None:
        super().__init__(f"is larger than {max_image_mb:g} MB")


class RemoteImages:
    """Downloads pictures that callers name by URL; redirects pass the same check as the URL itself.

    Args:
        settings: ``max_image_mb``, ``fetch_timeout_s``, ``fetch_allowed_hosts``.
        tls, resolve: see `PublicHTTP`.
    """

    def __init__(
        self, settings: Settings, *, tls: ssl.SSLContext | None = None, resolve: Resolver | None = None
    ) -> None:
        self._max_mb = settings.max_image_mb
        self._timeout_s = settings.fetch_timeout_s
        self._http = PublicHTTP(settings.fetch_allowed_hosts, tls=tls, resolve=resolve)

    async def fetch(self, url: str) -> bytes:
        """The body behind an http or https URL, whatever it is; at most ``max_image_mb``.

        Raises:
            NotFetched: not such a URL, an address that is not public, an answer other than 200, or
                ``fetch_timeout_s`` went by.
            TooLargeToFetch: more bytes than allowed; the rest was not read.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError as error:
            raise NotFetched("it took too long") from error
        except NotReached as error:
            raise NotFetched(str(error)) from error

    async def _follow(self, url: str) -> bytes:
        target = self._http.read(url)
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._get(target)
            if isinstance(found, bytes):
                return found
            target = self._http.read(found)
        raise NotFetched(f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: httpx.URL) -> bytes | str:
        """The body of the answer, or the URL that a redirect points to."""
        accepted = {"Accept": "image/*"}
        async with self._http.request("GET", url, headers=accepted, timeout_s=self._timeout_s) as response:
            if response.status_code in REDIRECTS and "location" in response.headers:
                return str(url.join(response.headers["location"]))
            if response.status_code != 200:
                raise NotFetched(f"the server answered {response.status_code}")
            return await self._body(response)

    async def _body(self, response: httpx.Response) -> bytes:
        if is_compressed(response):
            raise NotFetched("the server compressed the answer although it was asked not to")
        max_bytes = int(self._max_mb * 1_000_000)
        stated = response.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > max_bytes:
            raise TooLargeToFetch(self._max_mb)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise TooLargeToFetch(self._max_mb)
        return bytes(body)
