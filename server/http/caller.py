"""The caller of a page: API key -> account, what it can afford, how a retry of its call is recognised."""

from __future__ import annotations

from contextlib import suppress

from fastapi import Request

from server import errors
from server.accounts.accounts import Account
from server.http.call_state import call_state
from server.http.services import services
from server.jobs.job import Job

LONGEST_IDEMPOTENCY_KEY = 255
"""The most characters of an idempotency key: an index of any database takes them."""

IDEMPOTENCY_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": LONGEST_IDEMPOTENCY_KEY},
    "description": "The same key and body return the first answer again; nothing is drawn or charged twice.",
}
"""The parameter object of this header in the OpenAPI document."""


def header_key(request: Request) -> str | None:
    """The API key of the first header that has one: ``x-api-key``, ``key``, ``Authorization: Bearer``."""
    for name in ("x-api-key", "key"):
        if key := request.headers.get(name, "").strip():
            return key
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def authenticate(request: Request, api_key: str | None) -> Account:
    """The account of a key; from here on the answer carries ``x-remaining-credits``.

    Raises:
        MissingKey, InvalidKey: nothing else is said, so that a guess learns nothing.
    """
    server = services(request)
    if server.settings.auth == "open":
        account = await server.accounts.open_account()
    elif not api_key:
        raise errors.MissingKey
    else:
        account = await server.accounts.authenticate(api_key)
    call_state(request).balance = account.balance
    return account


async def recognise(request: Request, api_key: str | None) -> None:
    """Let the answer say the balance of a caller to whom nothing was given, if anybody known calls."""
    with suppress(errors.ApiError):
        await authenticate(request, api_key)


async def administrator(request: Request, account: Account, api_key: str | None, page: str) -> Account:
    """The account that calls, which has to be an administrator's.

    Args:
        account: whose the key is, by `authenticate`.
        page: what the refusal calls the page.
    Raises:
        Forbidden: the key is not an administrator's; in open mode too, where any other key does for drawing.
    """
    server = services(request)
    if not account.is_administrator and server.settings.auth == "open":
        with suppress(errors.InvalidKey):
            account = await server.accounts.authenticate(api_key or "")
    if not account.is_administrator:
        raise errors.Forbidden(f"{page} needs an administrator's key")
    return account


async def authenticate_by_header(request: Request) -> Account:
    """The account of the key in a header of the request; see `authenticate`."""
    return await authenticate(request, header_key(request))


def afford(request: Request, account: Account, price: int) -> None:
    """Refuse an account that cannot pay, early; the price itself is held when the job is opened.

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


def report_balance(request: Request, job: Job) -> None:
    """Let the answer's ``x-remaining-credits`` say the balance after this job."""
    call_state(request).balance = job.balance
