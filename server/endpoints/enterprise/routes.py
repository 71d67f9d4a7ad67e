"""An operation's routes, with what /docs shows of them: body, answers, parameters."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.accounts.accounts import Account
from server.endpoints.enterprise.families import routes_of
from server.endpoints.enterprise.wire import (
    Answer,
    Operation,
    OperationT,
    message,
    read,
    read_as_administrator,
)


def post(
    router: APIRouter,
    operation: type[OperationT],
    handle: Callable[[Request, Account, OperationT], Awaitable[Answer]],
) -> None:
    """Register an operation under its path in every family that has it; see `families`.

    Args:
        handle: makes the body of the answer. Parameters of the path are in ``request.path_params``.
    """
    for path, family, fields in routes_of(operation):
        path_parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ]
        router.add_api_route(
            path,
            _endpoint(fields, handle),
            methods=["POST"],
            name=operation.slug,
            summary=operation.summary,
            description=operation.description,
            tags=[family.name],
            include_in_schema=family.shown,
            response_class=JSONResponse,
            responses=_answers(operation.answer),
            openapi_extra={
                "parameters": [*path_parameters, *operation.parameters],
                "requestBody": _request_body(fields),
            },
            operation_id=path,
        )


def _endpoint(
    operation: type[OperationT],
    handle: Callable[[Request, Account, OperationT], Awaitable[Answer]],
) -> Callable[[Request], Awaitable[JSONResponse]]:
    read_fields = read_as_administrator if operation.administrators_only else read

    async def endpoint(request: Request) -> JSONResponse:
        account, fields = await read_fields(request, operation)
        return JSONResponse(await handle(request, account, fields))

    return endpoint


def _request_body(operation: type[Operation]) -> dict[str, Any]:
    # Bodies with nothing but a key are one schema, hence one class of a generated client.
    shown = operation if operation.model_fields.keys() > Operation.model_fields.keys() else Operation
    content = {"application/json": {"schema": shown.model_json_schema(), "example": operation.example}}
    return {"required": True, "content": content}


def _answers(success: Answer) -> dict[int | str, dict[str, Any]]:
    refusal = {"status": "error", "message": "Invalid Api Key", "tip": "..."}
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
