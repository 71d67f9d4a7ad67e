"""The parts that all enterprise operations share: fields, reading a body and the key in it, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, ValidationError

from server.accounts.accounts import Account
from server.endpoints.body import read_body, read_query
from server.endpoints.fields import Fields, Text, field_errors, picture_names
from server.errors import (
    ApiError,
    FieldError,
    Forbidden,
    InsufficientCredits,
    InternalError,
    InvalidContentType,
    InvalidKey,
    MalformedBody,
    MethodNotAllowed,
    MissingField,
    MissingKey,
    NoSuchPage,
    QueueFull,
    Unavailable,
    UnreadableCoding,
)
from server.http import caller
from server.http.call_state import call_state
from server.http.services import services

ROOT = "/api/"
"""The path below which everything is answered in this dialect, whether there is such a page or not."""

PREFIX = f"{ROOT}v1/enterprise"
"""The paths of the enterprise documentation; `families` has the vendor's others."""

_STANDARD_ERRORS = f"{ROOT}v7/"
"""The paths whose errors have their own statuses in any setting: their client reads none from a 200 body."""


Answer: TypeAlias = Mapping[str, object] | Sequence[Mapping[str, object]]
"""The body of an answer, before it is JSON."""

WIRE_NAMES = {
    "loras": "lora_model",
    "embeddings": "embeddings_model",
    "pipeline": "model_id",
    "token_merging_ratio": "tomesd",
    "controls": "controlnet_model",
    "preprocessor": "auto_hint",
}
"""The wire's names of fields that an engine's error calls by their canonical ones."""


class Operation(Fields):
    """The fields of every operation."""

    # What /docs says is beside the fields; a class's docstring is shown there too.
    slug: ClassVar[str]
    """The operation's name in its path, in the records of jobs, in the metrics and in the price list."""
    also: ClassVar[tuple[str, ...]] = ()
    """Further paths of the operation."""
    administrators_only: ClassVar[bool] = False
    """Whether the operation changes the server for everyone."""
    summary: ClassVar[str]
    description: ClassVar[str | None] = None
    parameters: ClassVar[Sequence[Mapping[str, object]]] = ()
    """The operation's parameters beside its body and its path, as OpenAPI says them."""
    example: ClassVar[Mapping[str, object]] = {"key": "enterprise_api_key"}
    """A sample body."""
    answer: ClassVar[Any]
    """A sample answer: a mapping, or a list of them."""

    key: Text | None = Field(None, description="API key; or send it in a header.")


class InvalidFields(ApiError):
    """The body has one or more fields that are wrong; all of them are told at once."""

    status = 400

    def __init__(self, problems: list[FieldError]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


OperationT = TypeVar("OperationT", bound=Operation)


async def read(request: Request, operation: type[OperationT]) -> tuple[Account, OperationT]:
    """The account that calls and the fields that it sends. The key is looked at first.

    Raises:
        MalformedBody, MissingKey, InvalidKey, InvalidFields: the call is refused, in this order.
    """
    body = await _read_body(request, operation)
    account = await caller.authenticate(request, _key(request, body))
    try:
        return account, operation.model_validate(body)
    except ValidationError as error:
        raise InvalidFields(field_errors(operation, error)) from None


async def _read_body(request: Request, operation: type[Operation]) -> Mapping[str, object]:
    """The body as names and values, over those of the URL: two published clients send an empty body."""
    pictures = picture_names(operation)
    try:
        named_in_url = read_query(request, pictures)
        if not (await request.body()).strip():
            return named_in_url
        return {**named_in_url, **await read_body(request, pictures)}
    except ApiError as error:
        await caller.recognise(request, caller.header_key(request))
        if isinstance(error, InvalidContentType):
            raise MalformedBody("body: must be JSON or a form") from None
        raise


def _key(request: Request, body: Mapping[str, object]) -> str | None:
    """The API key of the body; where it has none, that of a header."""
    key = body.get("key")
    own = key.strip() if isinstance(key, str) else ""
    return own or caller.header_key(request)


async def sent_key(request: Request) -> str | None:
    """The API key of a call that no page answers."""
    try:
        return _key(request, await _read_body(request, Operation))
    except ApiError:
        return None


async def read_as_administrator(request: Request, operation: type[OperationT]) -> tuple[Account, OperationT]:
    """The account of an administrator and the fields that it sends.

    Raises:
        Forbidden: the key is not an administrator's; in open mode too, where any other key does for drawing.
        MalformedBody, MissingKey, InvalidKey, InvalidFields: see `read`.
    """
    account, fields = await read(request, operation)
    server = services(request)
    if not account.is_administrator and server.settings.auth == "open":
        with suppress(InvalidKey):
            account = await server.accounts.authenticate(_key(request, {"key": fields.key}) or "")
    if not account.is_administrator:
        name = request.url.path.rpartition("/")[2]
        raise Forbidden(f"{name} changes this server for everyone and needs an administrator's key")
    return account, fields


def yes_no(value: bool) -> str:
    """A flag as this dialect's answers say it."""
    return "yes" if value else "no"


def message(text: object) -> dict[str, object]:
    """A text under its right name and under the misspelt one that clients read."""
    return {"message": text, "messege": text}


def error_response(error: ApiError, request: Request) -> Response:
    """The dialect's error body; its status is 200 unless the settings or the path ask for the standard ones,
    or no page was reached at all."""
    headers: dict[str, str] = {}
    body: dict[str, object] = {"status": "error"}
    match error:
        case MissingKey():
            body |= message(by_field([MissingField("key")]))
        case InvalidKey():
            # Not under the misspelt name: typed clients read a map there.
            body["message"] = "Invalid Api Key"
            body["tip"] = "Keys are made with `understudy keys create`; this one is unknown or revoked."
        case InsufficientCredits():
            body |= message("Insufficient credits. Please add more credits to continue.")
        case QueueFull():
            body |= message("Rate limit exceeded")
            body["tips"] = "Too many requests are waiting. Send this one again after retry_after seconds."
            body["retry_after"] = error.retry_after_s
            headers["retry-after"] = str(error.retry_after_s)
        case Unavailable():
            body |= message(str(error))
            if error.retry_after_s is not None:
                headers["retry-after"] = str(error.retry_after_s)
        case UnreadableCoding():
            body |= message(str(error))
            headers["accept-encoding"] = "identity"
        case InternalError():
            body |= message(str(error))
            body["request_id"] = call_state(request).request_id
        case _:
            body |= message(described(error))
    standard = isinstance(error, NoSuchPage | MethodNotAllowed) or request.url.path.startswith(
        _STANDARD_ERRORS
    )
    legacy = services(request).settings.enterprise_errors == "legacy" and not standard
    return JSONResponse(body, 200 if legacy else error.status, headers)


def described(error: ApiError) -> object:
    """What an error says: by the names of its fields, where it is told on fields."""
    match error:
        case InvalidFields():
            return by_field(error.problems)
        case FieldError():
            return by_field([error])
        case _:
            return str(error)


def by_field(problems: list[FieldError]) -> dict[str, list[str]]:
    """The texts of the problems under the wire's names of their fields."""
    texts: dict[str, list[str]] = {}
    for problem in problems:
        name = WIRE_NAMES.get(problem.field, problem.field)
        missing = isinstance(problem, MissingField)
        text = f"The {name} field is required." if missing else f"{name} {problem.problem}"
        texts.setdefault(name, []).append(text)
    return texts
