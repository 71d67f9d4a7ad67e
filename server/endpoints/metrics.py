"""GET /metrics: counters for Prometheus; no key, nothing about callers."""

from __future__ import annotations

import math

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from server import errors
from server.http.services import services

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Queue length, running requests, jobs by outcome, seconds per stage, lost engines, webhooks."""
    parts = services(request)
    try:
        parts.metrics.show_pending_webhooks(await parts.webhooks.pending())
    except errors.Unavailable:
        parts.metrics.show_pending_webhooks(math.nan)
    return Response(parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)
