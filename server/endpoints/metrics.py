"""GET /metrics: counters for Prometheus; no key, nothing about callers."""

from __future__ import annotations

import math

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from server import errors
from server.http.services import services

router = APIRouter(tags=["health"])


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Queue length, running requests, whether an engine can draw, jobs by outcome, seconds per stage,
    webhooks.
    """
    server = services(request)
    try:
        server.metrics.show_pending_webhooks(await server.webhooks.pending())
    except errors.Unavailable:
        server.metrics.show_pending_webhooks(math.nan)
    return Response(server.metrics.text(), media_type=CONTENT_TYPE_LATEST)
