"""GET /outputs/{name}: a drawn or uploaded picture; the name is unguessable, so no key is asked for."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.http.services import services

router = APIRouter(tags=["outputs"])

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


@router.head("/outputs/{name}", include_in_schema=False)
@router.get(
    "/outputs/{name}",
    summary="A stored picture",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, 404: {"description": "Unknown, or its retention is over"}},
    openapi_extra={"parameters": [_NAME]},
)
async def output(request: Request) -> Response:
    data, content_type = await services(request).storage.get(request.path_params["name"])
    # A caller's bytes are served here too: no browser may take them for anything but what they are.
    return Response(data, media_type=content_type, headers={"x-content-type-options": "nosniff"})
