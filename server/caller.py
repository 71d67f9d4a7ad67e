"""Who is calling: API key -> account, the picture they sent, whether they are still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from fastapi import Request

from pipelines import image_io
from pipelines.errors import ImageTooLarge, InvalidImage
from pipelines.image_io import RGBImage
from pipelines.weights.manifest import Manifest
from server import errors
from server.accounts import Account, Accounts
from server.catalogue import Catalogue
from server.credits import Credits
from server.dispatch import Dispatch
from server.generate import Studio
from server.jobs import Job
from server.loads import Loads
from server.metrics import Metrics
from server.public_http import PublicHTTP
from server.remote_images import RemoteImages
from server.settings import Settings
from server.storage import Storage
from server.webhooks import Webhooks

T = TypeVar("T")

LONGEST_IDEMPOTENCY_KEY = 255

IDEMPOTENCY_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": LONGEST_IDEMPOTENCY_KEY},
    "description": "The same key and body return the first answer again; nothing is drawn or charged twice.",
}
"""As OpenAPI says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What endpoints reach of the server; built once by the composition root."""

    settings: Settings
    accounts: Accounts
    credits: Credits
    studio: Studio
    storage: Storage
    images: RemoteImages
    catalogue: Catalogue
    loads: Loads
    dispatch: Dispatch
    metrics: Metrics
    public_http: PublicHTTP
    webhooks: Webhooks

    @property
    def manifest(self) -> Manifest:
        """All that can be drawn at this moment."""
        return self.catalogue.manifest


def services(request: Request) -> Services:
    """FastAPI dependency: the parts of the running server."""
    return cast(Services, request.app.state.services)


def header_key(request: Request) -> str | None:
    """The API key of ``x-api-key`` or ``Authorization: Bearer``."""
    key = request.headers.get("x-api-key")
    if key:
        return key.strip()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def authenticate(request: Request, api_key: str | None) -> Account:
    """The account of a key; from here on the answer carries ``x-remaining-credits``.

    Raises:
        MissingKey, InvalidKey: and nothing else, so that a guess learns nothing.
    """
    parts = services(request)
    if parts.settings.auth == "open":
        account = await parts.accounts.open_account()
    elif not api_key:
        raise errors.MissingKey
    else:
        account = await parts.accounts.authenticate(api_key)
    request.state.balance = account.balance
    return account


def afford(request: Request, account: Account, price: int) -> None:
    """Refuse early who cannot pay; the price itself is held when the job is opened.

    Args:
        price: millicredits.
    Raises:
        InsufficientCredits
    """
    if services(request).settings.auth == "keys" and account.balance < price:
        raise errors.InsufficientCredits(account.balance, price)


def idempotency_key(request: Request) -> str | None:
    """The name under which a retry of this call finds its first answer.

    Raises:
        FieldError: longer than a database's index takes.
    """
    key = request.headers.get("idempotency-key") or None
    if key and len(key) > LONGEST_IDEMPOTENCY_KEY:
        raise errors.FieldError(
            "Idempotency-Key", f"must be at most {LONGEST_IDEMPOTENCY_KEY} characters long"
        )
    return key


async def header_caller(request: Request) -> Account:
    """FastAPI dependency for pages whose key travels in a header."""
    return await authenticate(request, header_key(request))


def spent(request: Request, job: Job) -> None:
    """Let ``x-remaining-credits`` of the answer say the balance after this job."""
    request.state.balance = job.balance


async def read_picture(request: Request, given: str | bytes, field: str = "image") -> RGBImage:
    """Decode a picture given as base64, data URI, http(s) URL or file bytes; in a thread, within the limits.

    Raises:
        InvalidInputImage, BodyTooLarge, FieldError: in the caller's words.
    """
    parts = services(request)
    limits = picture_limits(request)
    try:
        if isinstance(given, str) and given.strip().lower().startswith(("http://", "https://")):
            url = given.strip()
            given = await _upload(request, url, field) or await parts.images.fetch(url)
        if isinstance(given, str):
            return await asyncio.to_thread(image_io.decode_text, given, limits)
        return await asyncio.to_thread(image_io.decode, given, limits)
    except ImageTooLarge as error:
        raise errors.BodyTooLarge(f"{field}: {error.problem}") from error
    except InvalidImage as error:
        raise errors.InvalidInputImage from error


def picture_limits(request: Request) -> image_io.Limits:
    """What the settings allow of a picture that comes in."""
    settings = services(request).settings
    return image_io.Limits(
        max_bytes=int(settings.max_image_mb * 1_000_000),
        max_pixels=int(settings.max_image_megapixels * 1_000_000),
    )


async def _upload(request: Request, url: str, field: str) -> bytes | None:
    """What lies in this server's own storage is read there: a server may not fetch from itself.

    Returns:
        None: the URL is another server's.
    Raises:
        FieldError: its retention is over.
    """
    address = f"{public_url(request)}/outputs/"
    if not url.startswith(address):
        return None
    name = url.removeprefix(address).partition("?")[0]
    try:
        return (await services(request).storage.get(name))[0]
    except errors.NotFound:
        raise errors.FieldError(field, "this upload does not exist any more") from None


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but cancel it when the caller hangs up; the framework would let it run to its end.

    Call it after the body was read.

    Raises:
        CallerGone: nobody reads the answer any more.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise errors.CallerGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def public_url(request: Request) -> str:
    """How clients reach this server, without a slash at the end."""
    configured = services(request).settings.public_url
    return (configured or str(request.base_url)).rstrip("/")


def output_urls(request: Request, job: Job) -> list[str]:
    """Absolute URLs of a job's outputs, in order; they open with a plain GET."""
    return urls_below(public_url(request), job)


def urls_below(public_url: str, job: Job) -> list[str]:
    """The same where there is no request any more."""
    return [f"{public_url}/outputs/{output.name}" for output in job.outputs]
