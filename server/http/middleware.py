"""The first station: every request gets an id and a path without needless slashes, its body is capped, its
answer gets the accounting headers."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.amounts import in_credits
from server.errors import BodyTooLarge, BodyTooSlow
from server.http.call_state import begin_call

BODY_PAUSE_S = 30.0
"""The seconds without a byte after which a body that has begun is given up."""

EXPOSED_HEADERS = [
    "x-remaining-credits",
    "x-cost",
    "x-generation-time",
    "x-seed-value",
    "x-request-id",
    "x-output-metadata",
    "x-output-urls",
    "x-warnings",
    "retry-after",
    "x-rate-limit-reset-at-utc",
    "accept-ranges",
    "content-range",
    "etag",
]
"""The headers of an answer that scripts in a browser may read: the accounting, and what downloads need."""

_SLASHES = re.compile("/{2,}")

_HOST = re.compile("^https?://[^/?#]*", re.IGNORECASE)
"""What comes before the path where a request line has a whole URL, as callers of a proxy send it."""


class CallMiddleware:
    """ASGI middleware; plain, because the framework's own base class hides a caller's hang-up."""

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        on_error: Callable[[Request, Exception], Awaitable[Response]],
        body_pause_s: float = BODY_PAUSE_S,
    ) -> None:
        """
        Args:
            body_pause_s: the seconds without a byte after which a body is given up.
            on_error: answers for an exception that nobody expected.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._on_error = on_error
        self._body_pause_s = body_pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = _plain_path(scope)
        call = begin_call(scope, str(uuid.uuid4()))
        declared = Headers(scope=scope).get("content-length", "")
        received = 0
        complete = False
        started = False

        async def capped_receive() -> Message:
            nonlocal received, complete
            if declared.isdecimal() and int(declared) > self._max_body_bytes:
                raise self._too_large()
            try:
                # Once the body is there, this waits for the caller to hang up, however long.
                async with asyncio.timeout(None if complete else self._body_pause_s):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        async def labelled_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("x-request-id", call.request_id)
                if call.balance is not None:
                    headers["x-remaining-credits"] = str(in_credits(call.balance))
            await send(message)

        try:
            await self._app(scope, capped_receive, labelled_send)
        except Exception as error:
            if started:
                raise
            response = await self._on_error(Request(scope), error)
            await response(scope, receive, labelled_send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_body_bytes / 1_000_000:g} MB")


def _plain_path(scope: Scope) -> str:
    """The path as routes know it. A base URL with a slash at its end gives two in the middle.

    The framework would redirect to the host of the request, which behind a proxy is an internal name.
    """
    path: str = scope["path"]
    if b"%2f" in scope.get("raw_path", b"").lower():
        # An encoded slash separates nothing: it stays as it was sent, and is part of no name here.
        sent = scope["raw_path"].decode("ascii", "replace").partition("?")[0]
        path = re.sub("%2f", "%252F", sent, flags=re.IGNORECASE)
        path = unquote(path)
    return _SLASHES.sub("/", _HOST.sub("", path)).rstrip("/") or "/"
