"""GET /generations/{name}: a drawn or uploaded picture; the name is unguessable, so no key is asked for.

A player, a CDN or a download that was interrupted asks for parts, or whether what it has is still right.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from server import errors
from server.endpoints.segmind.wire import error_response
from server.http.conditions import http_date, select
from server.http.services import services
from server.http.urls import OUTPUT_PATH, OUTPUT_PATHS

router = APIRouter(tags=["outputs"])

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE = {
    **{f"image/{kind}": _BYTES for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")},
    "application/octet-stream": _BYTES,
    "text/plain": {"schema": {"type": "string"}},
}
"""The types of what is stored: pictures, and their base64 where a call asked for that."""
_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": _FILE},
    206: {"description": "The part that `Range` asks for", "content": _FILE},
    304: {"description": "Not changed since the caller got it"},
    404: {"description": "Unknown, or its retention is over", "content": _ERROR},
    412: {"description": "Not the file that `If-Match` means", "content": _ERROR},
    416: {"description": "The part lies outside of the file", "content": _ERROR},
}


async def output(request: Request) -> Response:
    """The file, or the part of it that is asked for."""
    storage = services(request).storage
    try:
        file = await storage.find(request.path_params["name"])
    except errors.NotFound as error:
        # It may be there soon: `future_links` are told before their pictures are drawn.
        missing = error_response(error, request)
        missing.headers["cache-control"] = "no-store"
        return missing
    headers = {
        "etag": file.etag,
        "last-modified": http_date(file.last_modified),
        "cache-control": f"public, max-age={max(0, int(file.expires_in.total_seconds()))}, immutable",
        "accept-ranges": "bytes",
        # A caller's bytes are served here too: no browser may take them for anything but what they are.
        "x-content-type-options": "nosniff",
        # A cache keeps one answer for all: also for a page elsewhere, which asks with `Origin`.
        "access-control-allow-origin": "*",
        "cross-origin-resource-policy": "cross-origin",
    }
    chosen = select(request.headers, size=file.size, etag=file.etag, last_modified=file.last_modified)
    match chosen.status:
        case 304:
            return Response(status_code=304, headers=headers)
        case 412:
            headers["cache-control"] = "no-store"
            return JSONResponse({"error": "The file is another one"}, 412, headers)
        case 416 if request.method == "GET":
            headers |= {"cache-control": "no-store", "content-range": f"bytes */{file.size}"}
            return JSONResponse({"error": f"The range is outside of {file.size} bytes"}, 416, headers)
        case 206 if request.method == "GET":
            headers["content-range"] = f"bytes {chosen.start}-{chosen.end - 1}/{file.size}"
            part = await storage.read(file, chosen.start, chosen.end)
            return Response(part, 206, headers, file.content_type)
        case _:
            pass
    if request.method == "HEAD":
        return Response(headers=headers | {"content-length": str(file.size)}, media_type=file.content_type)
    return Response(await storage.read(file, 0, file.size), headers=headers, media_type=file.content_type)


for _path in OUTPUT_PATHS:
    router.add_api_route(f"{_path}/{{name}}", output, methods=["HEAD"], include_in_schema=False)
    router.add_api_route(
        f"{_path}/{{name}}",
        output,
        methods=["GET"],
        summary="A stored picture",
        description="Opens without a key. Names are never used twice: whatever is cached stays right.",
        include_in_schema=_path == OUTPUT_PATH,
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra={"parameters": [_NAME]},
    )
