"""What the enterprise operations share: reading a body, the key in it, paths, errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, ValidationError

from server.accounts.accounts import Account
from server.endpoints.fields import Fields, Text, field_errors, json_object
from server.errors import (
    ApiError,
    FieldError,
    Forbidden,
    InsufficientCredits,
    InternalError,
    InvalidKey,
    MissingField,
    MissingKey,
    QueueFull,
    Unavailable,
)
from server.http import caller
from server.http.call_state import call_state
from server.http.services import services

PREFIX = "/api/v1/enterprise"

PATH_FAMILIES = (PREFIX, f"{PREFIX}/images", f"{PREFIX}/community", f"{PREFIX}/txt2img")
"""The documentation's paths, and those of the published Python and JavaScript, PHP and older Python SDKs."""

_WIRE_NAMES = {
    "loras": "lora_model",
    "embeddings": "embeddings_model",
    "pipeline": "model_id",
    "token_merging_ratio": "tomesd",
    "controls": "controlnet_model",
    "preprocessor": "auto_hint",
}
"""Canonical names that an engine's error may speak of, where the wire has another."""


class Operation(Fields):
    """The fields of every operation."""

    key: Text | None = Field(None, description="API key; or send it as `Authorization: Bearer`.")


class InvalidFields(ApiError):
    """Everything that is wrong with a body."""

    status = 400

    def __init__(self, problems: list[FieldError]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


O = TypeVar("O", bound=Operation)  # noqa: E741


async def read(request: Request, operation: type[O]) -> tuple[Account, O]:
    """Who calls, and with which fields. The key is looked at first.

    Raises:
        MalformedBody, MissingKey, InvalidKey, InvalidFields
    """
    raw = await request.body()
    body = json_object(raw) if raw.strip() else {}
    key = body.get("key")
    account = await caller.authenticate(
        request, key if isinstance(key, str) and key else caller.header_key(request)
    )
    try:
        return account, operation.model_validate(body)
    except ValidationError as error:
        raise InvalidFields(field_errors(operation, error)) from None


async def read_as_administrator(request: Request, operation: type[O]) -> tuple[Account, O]:
    """As `read`, for operations that change the server for everyone.

    Raises:
        Forbidden: the key is not an administrator's; in open mode too, where any other key does for drawing.
        MalformedBody, MissingKey, InvalidKey, InvalidFields: see `read`.
    """
    account, fields = await read(request, operation)
    parts = services(request)
    if not account.is_administrator and parts.settings.auth == "open":
        with suppress(InvalidKey):
            account = await parts.accounts.authenticate(fields.key or caller.header_key(request) or "")
    if not account.is_administrator:
        name = request.url.path.rpartition("/")[2]
        raise Forbidden(f"{name} changes this server for everyone and needs an administrator's key")
    return account, fields


def digest(fields: Operation) -> str:
    """The same for two bodies that mean the same, random seeds included."""
    return hashlib.sha256(repr(sorted(fields.model_dump(exclude={"key"}).items())).encode()).hexdigest()


def yes_no(value: bool) -> str:
    """Flags are words in this dialect's answers."""
    return "yes" if value else "no"


def message(text: object) -> dict[str, object]:
    """A text under its right name and under the misspelt one that clients read."""
    return {"message": text, "messege": text}


def post(
    router: APIRouter,
    operation: str,
    handler: Callable[..., Awaitable[Any]],
    fields: type[Operation],
    *,
    summary: str,
    description: str | None = None,
    example: Mapping[str, object],
    answer: Mapping[str, object],
    parameters: Sequence[Mapping[str, object]] = (),
) -> None:
    """Register an operation under every path family; the documentation shows the documented one.

    What a handler takes from the path it finds in ``request.path_params``.
    """
    content = {"application/json": {"schema": fields.model_json_schema(), "example": example}}
    path_parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation)
    ]
    for family in PATH_FAMILIES:
        router.add_api_route(
            f"{family}/{operation}",
            handler,
            methods=["POST"],
            summary=summary,
            description=description,
            tags=["enterprise"],
            include_in_schema=family == PREFIX,
            response_class=JSONResponse,
            responses=_answers(answer),
            openapi_extra={
                "parameters": [*path_parameters, *parameters],
                "requestBody": {"required": True, "content": content},
            },
            operation_id=f"{operation}{family}",
        )


def _answers(success: Mapping[str, object]) -> dict[int | str, dict[str, Any]]:
    refusal = {"status": "error", **message("Invalid Api Key"), "tip": "..."}
    unavailable = {"status": "error", **message("the engine is starting")}
    return {
        200: {
            "description": "Success; by default also every error, told apart by `status`",
            "content": {
                "application/json": {
                    "examples": {"success": {"value": success}, "error": {"value": refusal}},
                }
            },
        },
        "4XX": {
            "description": "Refused, where the server is set to standard statuses; nothing was charged",
            "content": {"application/json": {"example": refusal}},
        },
        "5XX": {
            "description": "Failed, where the server is set to standard statuses; nothing was charged",
            "content": {"application/json": {"example": unavailable}},
        },
    }


def error_response(error: ApiError, request: Request) -> Response:
    """The dialect's error body; its status is 200 unless the settings ask for the standard ones."""
    headers: dict[str, str] = {}
    body: dict[str, object] = {"status": "error"}
    match error:
        case InvalidFields():
            body |= message(by_field(error.problems))
        case MissingKey():
            body |= message(by_field([MissingField("key")]))
        case FieldError():
            body |= message(by_field([error]))
        case InvalidKey():
            body |= message("Invalid Api Key")
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
            headers["retry-after"] = str(error.retry_after_s)
        case InternalError():
            body |= message(str(error))
            body["request_id"] = call_state(request).request_id
        case _:
            body |= message(str(error))
    legacy = services(request).settings.enterprise_errors == "legacy"
    return JSONResponse(body, 200 if legacy else error.status, headers)


def by_field(problems: list[FieldError]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for problem in problems:
        name = _WIRE_NAMES.get(problem.field, problem.field)
        missing = isinstance(problem, MissingField)
        text = f"The {name} field is required." if missing else f"{name} {problem.problem}"
        texts.setdefault(name, []).append(text)
    return texts
