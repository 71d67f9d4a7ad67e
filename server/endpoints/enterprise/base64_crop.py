"""POST base64_crop of the V3 pages: a picture goes into storage, cut to a square where that is asked for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import Field

from pipelines import image_io
from server.accounts.accounts import Account
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.uploads import read_upload, store_upload
from server.endpoints.enterprise.wire import Operation, message
from server.endpoints.fields import Flag, PictureField


class Base64Crop(Operation):
    """The fields of base64_crop."""

    slug: ClassVar[str] = "base64_crop"
    summary: ClassVar[str] = "Store a picture, cut to a square"
    description: ClassVar[str | None] = (
        "As upload_image, with the names of the V3 page. The picture's URL is in `link`; `request_id` is a"
        " number of this call alone, nothing can be fetched with it. Nothing is charged."
    )
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "image": "data:image/png;base64,iVBORw0KGgo...",
        "crop": "true",
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        **message("image uploaded"),
        "link": "http://127.0.0.1:8000/generations/0b9d2a7c-5c1e-4e0f-9a53-1f0f6f3f7c55.png",
        "request_id": 2398,
    }

    image: PictureField = Field(
        description="The picture as base64, with or without `data:image/...;base64,` before it."
    )
    crop: Flag = Field(
        False,
        description="Keep the largest square in the middle; how the vendor crops is not documented.",
    )


async def base64_crop(request: Request, account: Account, fields: Base64Crop) -> dict[str, object]:
    picture, file = await read_upload(request, fields.image, "image")
    if fields.crop and picture.width != picture.height:
        side = min(picture.width, picture.height)
        square = await asyncio.to_thread(image_io.cover, picture, side, side)
        file = await asyncio.to_thread(image_io.encode, square, "png")
    link = await store_upload(request, file)
    return {
        "status": "success",
        **message("image uploaded"),
        "link": link,
        "request_id": secrets.randbits(31),
    }


router = APIRouter()
post(router, Base64Crop, base64_crop)
