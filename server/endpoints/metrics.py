"""GET /metrics: counters for Prometheus; no key, nothing about callers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from server import caller

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Queue length, running requests, jobs by outcome, seconds per stage, lost engines."""
    return Response(caller.services(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
