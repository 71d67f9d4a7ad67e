"""POST base64_to_url of the v6 pages: a picture goes into storage, its URL comes back like a drawn one's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field

from server.accounts.accounts import Account
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.uploads import read_upload, store_upload
from server.endpoints.enterprise.wire import Operation
from server.endpoints.fields import PictureField


class Base64ToUrl(Operation):
    """The fields of base64_to_url: one page documents init_image, the other base64_string."""

    slug: ClassVar[str] = "base64_to_url"
    summary: ClassVar[str] = "Store a picture"
    description: ClassVar[str | None] = (
        "As upload_image, with the names of the v6 pages. `id` is a number of this call alone, nothing can be"
        " fetched with it. Nothing is charged."
    )
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "base64_string": "data:image/png;base64,iVBORw0KGgo...",
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "id": 2398,
        "output": ["http://127.0.0.1:8000/generations/0b9d2a7c-5c1e-4e0f-9a53-1f0f6f3f7c55.png"],
    }

    base64_string: PictureField = Field(
        validation_alias=AliasChoices("base64_string", "init_image", "image"),
        description="The picture as base64, with or without `data:image/...;base64,` before it. Also as"
        " `init_image`.",
    )


async def base64_to_url(request: Request, account: Account, fields: Base64ToUrl) -> dict[str, object]:
    _, file = await read_upload(request, fields.base64_string, "base64_string")
    return {
        "status": "success",
        "id": secrets.randbits(31),
        "output": [await store_upload(request, file)],
    }


router = APIRouter()
post(router, Base64ToUrl, base64_to_url)
