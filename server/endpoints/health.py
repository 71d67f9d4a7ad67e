"""GET /livez: the process is up. GET /readyz: an engine can draw, and what lacks weights; or why not."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pipelines.messages import Absent
from server.http.services import services

router = APIRouter(tags=["health"])

RETRY_AFTER_S = 5


_READY = {
    "type": "object",
    "properties": {
        "status": {"type": "string"},
        "missing": {
            "type": "array",
            "description": "What lacks weights, and what mends it; everything else is drawn.",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"type": "string", "description": "Its section of weights.yaml"},
                    "part": {"type": "string", "description": "Only requests that need this part fail"},
                    "reason": {"type": "string"},
                    "remedy": {"type": "string"},
                },
                "required": ["name", "kind", "reason", "remedy"],
            },
        },
    },
    "required": ["status"],
}

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
        200: {"content": {"application/json": {"schema": _READY, "example": {"status": "ready"}}}},
        503: {
            "description": "Not now; `reason` says why",
            "content": {"application/json": {"schema": _UNAVAILABLE}},
        },
    },
)
async def readyz(request: Request) -> Response:
    dispatch = services(request).dispatch
    reason = dispatch.readiness()
    if reason is None:
        missing = [_written(absence) for absence in dispatch.absences()]
        return JSONResponse({"status": "ready", **({"missing": missing} if missing else {})})
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return JSONResponse({"status": "unavailable", "reason": reason}, 503, headers)


def _written(absence: Absent) -> dict[str, str]:
    """What is missing, in the answer's words."""
    part = {} if absence.part is None else {"part": absence.part}
    written = {"name": absence.name, "kind": absence.kind, **part}
    return {**written, "reason": absence.reason, "remedy": absence.remedy}
