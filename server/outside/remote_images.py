"""Fetching the pictures that callers name by URL."""

from __future__ import annotations

import asyncio
import ssl

import httpx

from server.errors import BodyTooLarge, FieldError
from server.outside.public_http import NotReached, PublicHTTP, Resolver
from server.settings import Settings

MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)


class RemoteImages:
    """Downloads pictures that callers name by URL; redirects pass the same check as the URL itself.

    Args:
        settings: ``max_image_mb``, ``fetch_timeout_s``, ``fetch_allowed_hosts``.
        tls, resolve: see `PublicHTTP`.
    """

    def __init__(
        self, settings: Settings, *, tls: ssl.SSLContext | None = None, resolve: Resolver | None = None
    ) -> None:
        self._max_bytes = int(settings.max_image_mb * 1_000_000)
        self._too_large = f"image: is larger than {settings.max_image_mb:g} MB"
        self._timeout_s = settings.fetch_timeout_s
        self._http = PublicHTTP(settings.fetch_allowed_hosts, tls=tls, resolve=resolve)

    async def fetch(self, url: str) -> bytes:
        """The body behind an http or https URL, whatever it is; at most ``max_image_mb``.

        Raises:
            FieldError: on ``image``: not such a URL, an address that is not public, an answer other than 200,
                or ``fetch_timeout_s`` went by. The text names no address that the caller did not write.
            BodyTooLarge: more bytes than allowed; the rest was not read.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError as error:
            raise _refused("it took too long") from error
        except NotReached as error:
            raise _refused(str(error)) from error

    async def _follow(self, url: str) -> bytes:
        target = self._http.read(url)
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._get(target)
            if isinstance(found, bytes):
                return found
            target = self._http.read(found)
        raise _refused(f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: httpx.URL) -> bytes | str:
        """The body, or where a redirect points to."""
        accepted = {"Accept": "image/*"}
        async with self._http.request("GET", url, headers=accepted, timeout_s=self._timeout_s) as response:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return str(url.join(response.headers["location"]))
            if response.status_code != 200:
                raise _refused(f"the server answered {response.status_code}")
            return await self._body(response)

    async def _body(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _refused("the server compressed the answer although it was asked not to")
        stated = response.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            raise BodyTooLarge(self._too_large)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise BodyTooLarge(self._too_large)
        return bytes(body)


def _refused(reason: str) -> FieldError:
    return FieldError("image", f"could not be fetched: {reason}")
