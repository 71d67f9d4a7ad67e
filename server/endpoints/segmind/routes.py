"""A model page's two routes, with what /docs shows of them: encodings, limits, answers, the sample."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.security import APIKeyHeader

from server.endpoints.segmind import wire
from server.endpoints.segmind.page import Page
from server.http import caller

api_key = APIKeyHeader(name="x-api-key", auto_error=False, description="Or `Authorization: Bearer`.")
"""The security scheme that /docs shows; `server.http.caller.header_key` is what reads the header."""

_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
_MEANINGS = {
    400: "A field is missing, malformed or out of range, or the picture cannot be read",
    401: "No API key, or one that is unknown or revoked",
    404: "No such page or request, or this server lacks what the page draws with",
    405: "Not with this verb",
    406: "Unreadable content type, not enough credits, or a value outside a documented enumeration",
    408: "The body stopped arriving",
    409: "The Idempotency-Key was used before with another body",
    413: "The body or the picture is too large",
    422: "The request failed; nothing was charged",
    429: "The queue is full; Retry-After says when to come back",
    500: "A failure of this server; nothing was charged",
    503: "Nothing can draw at the moment; Retry-After says when to come back",
    504: "The request waited too long in the queue",
}
_PICTURE = {"schema": {"type": "string", "format": "binary"}}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its ``responses``."""
    return {status: {"description": _MEANINGS[status], "content": _ERROR} for status in statuses}


def routes(page: type[Page]) -> APIRouter:
    """The routes of a page: ``POST /v1/{slug}`` and ``POST /v2/{slug}``."""
    router = APIRouter(tags=["segmind"], dependencies=[Depends(api_key)])
    refusals = error_responses(400, 401, 404, 406, 408, 409, 413, 429, 500, 503)

    async def draw(request: Request) -> Response:
        return await wire.draw(request, page)

    async def submit(request: Request) -> Response:
        return await wire.submit(request, page)

    router.add_api_route(
        f"/v1/{page.slug}",
        draw,
        methods=["POST"],
        summary=page.summary,
        description="Waits for the pictures. Several pictures without `base64`: the body is the first one, "
        "the header `x-output-urls` lists all. The header `x-output-metadata` is JSON: `height`, `width`, "
        "`samples`, and `evaluations`, how often the network was really asked for all of them together. "
        "The header `x-warnings` is there when something was sent in vain: a JSON array of texts, in ASCII. "
        "They say which words of a prompt are beyond what the text encoder reads, and which options have no "
        "effect; with `base64`, they are in the field `warnings` as well."
        f"\n\n{page.sources}",
        response_class=Response,
        responses={200: _pictures(page), **refusals, **error_responses(504)},
        openapi_extra={"parameters": [caller.IDEMPOTENCY_KEY_PARAMETER], "requestBody": _request_body(page)},
    )
    router.add_api_route(
        f"/v2/{page.slug}",
        submit,
        methods=["POST"],
        summary=f"{page.summary}, queued",
        description="Answers at once; `status_url` and `response_url` say where to ask for the pictures. "
        "Warnings come with them, as the header `x-warnings` and the field `warnings`; those that do not "
        "need the pictures come at once."
        f"\n\n{page.sources}",
        response_class=Response,
        responses={200: _submitted(), **refusals},
        openapi_extra={"parameters": [caller.IDEMPOTENCY_KEY_PARAMETER], "requestBody": _request_body(page)},
    )
    return router


def _request_body(page: type[Page]) -> dict[str, Any]:
    schema = page.model_json_schema()
    properties = schema["properties"]
    files = {
        name: {**properties[name], "format": "binary"} for name in ("image", "mask") if name in properties
    }
    upload = {**schema, "properties": {**properties, **files}}
    content = {
        "application/json": {"schema": schema, "example": page.example},
        "multipart/form-data": {"schema": upload},
        "application/x-www-form-urlencoded": {"schema": schema},
    }
    return {"required": True, "content": content}


def _pictures(page: type[Page]) -> dict[str, Any]:
    content: dict[str, Any] = dict.fromkeys(page.media_types, _PICTURE)
    if "base64" in page.model_fields:
        content["application/json"] = {
            "example": {
                "status": "Success",
                "image": "iVBORw0KGgo...",
                "infer_time": 1.83,
                "outputs": 1,
                "image_format": "png",
            }
        }
    return {"description": "The picture", "content": content}


def _submitted() -> dict[str, Any]:
    address = "http://127.0.0.1:8000/v2/requests/6ad2c1a8-94c2-4a51-9a3e-3a5c74a1b0d2"
    example = {
        "request_id": address.rpartition("/")[2],
        "status": "QUEUED",
        "poll_url": f"{address}/status",
        "status_url": f"{address}/status",
        "response_url": address,
    }
    return {"description": "Queued", "content": {"application/json": {"example": example}}}
