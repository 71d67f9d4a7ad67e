"""GET /livez: the process is up. GET /readyz: an engine can draw, or why not."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from server.http.services import services

router = APIRouter(tags=["health"])

RETRY_AFTER_S = 5


_UNAVAILABLE = {
    "type": "object",
    "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
    "required": ["status", "reason"],
}


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Is the process up?")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Can anything be drawn?",
    response_class=JSONResponse,
    responses={
        200: {"content": {"application/json": {"example": {"status": "ready"}}}},
        503: {
            "description": "Not now; `reason` says why",
            "content": {"application/json": {"schema": _UNAVAILABLE}},
        },
    },
)
async def readyz(request: Request) -> Response:
    reason = services(request).dispatch.readiness()
    if reason is None:
        return JSONResponse({"status": "ready"})
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return JSONResponse({"status": "unavailable", "reason": reason}, 503, headers)
