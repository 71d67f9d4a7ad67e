"""Documented operations that this version does not have yet: they say so instead of being unknown."""

from __future__ import annotations

from fastapi import APIRouter, Request

from server.endpoints.enterprise.wire import PATH_FAMILIES, Operation, read
from server.errors import NotYetAvailable

OPERATIONS = (
    "controlnet",
)  # fmt: skip


async def not_available_yet(request: Request) -> None:
    await read(request, Operation)
    raise NotYetAvailable(f"{request.url.path.rpartition('/')[2]} is not available yet")


router = APIRouter(include_in_schema=False)
for family in PATH_FAMILIES:
    for operation in OPERATIONS:
        router.add_api_route(f"{family}/{operation}", not_available_yet, methods=["POST"])
