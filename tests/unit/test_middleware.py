"""The middleware: a body that is too large, stops arriving, or is followed by a long wait."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.errors import BodyTooLarge, BodyTooSlow
from server.http.middleware import CallMiddleware

PAUSE_S = 0.05


def through_the_middleware(
    *messages: Message, hang_up_after_s: float | None = None, waits: bool = False
) -> Exception | Response:
    """Send these to an application that reads its body, and perhaps then waits for the hang-up.

    Returns:
        what the middleware was asked to answer for, or the application's own answer.
    """
    seen: list[Exception | Response] = []
    queue = list(messages)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = Response(await request.body())
        if waits:
            assert (await receive())["type"] == "http.disconnect"
        seen.append(response)

    async def failed(request: Request, error: Exception) -> Response:
        seen.append(error)
        return Response()

    async def receive() -> Message:
        if queue:
            return queue.pop(0)
        await asyncio.sleep(60 if hang_up_after_s is None else hang_up_after_s)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    middleware = CallMiddleware(application, max_body_bytes=10, on_error=failed, body_pause_s=PAUSE_S)
    asyncio.run(middleware({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    return seen[0]


def chunk(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_arrives_whole() -> None:
    answer = through_the_middleware(chunk(b"12345", more=True), chunk(b"67890"))
    assert isinstance(answer, Response)
    assert answer.body == b"1234567890"


@pytest.mark.parametrize("pieces", [(b"12345678901",), (b"123456", b"78901")])
def test_a_body_that_does_not_say_its_size_is_cut_off_all_the_same(pieces: tuple[bytes, ...]) -> None:
    assert isinstance(through_the_middleware(*(chunk(piece, more=True) for piece in pieces)), BodyTooLarge)


def test_a_body_that_stops_arriving_is_given_up() -> None:
    assert isinstance(through_the_middleware(chunk(b"12345", more=True)), BodyTooSlow)


def test_once_the_body_is_there_the_caller_may_wait_as_long_as_it_takes() -> None:
    answer = through_the_middleware(chunk(b"12345"), hang_up_after_s=3 * PAUSE_S, waits=True)
    assert isinstance(answer, Response)
