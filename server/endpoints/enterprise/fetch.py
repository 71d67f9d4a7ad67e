"""POST fetch and fetch/{id}: the pictures of an earlier call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field

from server.accounts.accounts import Account
from server.endpoints.enterprise.answers import fetched
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import InvalidFields, Operation
from server.endpoints.fields import WholeNumber
from server.errors import MissingField, NotFound
from server.http.services import services

LARGEST_ID = 2**63 - 1


class Fetch(Operation):
    """The fields of fetch."""

    slug: ClassVar[str] = "fetch"
    also: ClassVar[tuple[str, ...]] = ("fetch/{id}",)
    summary: ClassVar[str] = "The pictures of an earlier call"
    example: ClassVar[Mapping[str, object]] = {"key": "enterprise_api_key", "request_id": "13443927"}
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "id": 13443927,
        "output": ["http://127.0.0.1:8000/generations/...-0.png"],
    }

    request_id: WholeNumber | None = Field(
        None,
        # `id` is seen in clients, which send back what the first answer calls it.
        validation_alias=AliasChoices("request_id", "id"),
        description="The id that the first answer gave.",
    )


async def fetch(request: Request, account: Account, fields: Fetch) -> dict[str, object]:
    id: str | None = request.path_params.get("id")
    if id is None and fields.request_id is None:
        raise InvalidFields([MissingField("request_id")])
    wanted = fields.request_id if id is None else int(id) if id.isdecimal() and len(id) < 20 else None
    if wanted is None or not 0 < wanted <= LARGEST_ID:
        raise NotFound(f"Request {id or wanted} not found")
    job = await services(request).studio.find(account, id=wanted)
    return fetched(request, job)


router = APIRouter()
post(router, Fetch, fetch)
