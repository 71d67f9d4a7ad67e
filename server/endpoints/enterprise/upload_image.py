"""POST upload_image: a picture goes into storage, to be named by its URL in later calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field

from pipelines import image_io
from server.accounts.accounts import Account
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.uploads import read_upload, store_upload
from server.endpoints.enterprise.wire import Operation, message
from server.endpoints.fields import PictureField

_SUFFIX = {"jpeg": "jpg"}


def _lower(value: object) -> object:
    return value.strip().lower().removeprefix("image/") if isinstance(value, str) else value


class UploadImage(Operation):
    """The fields of upload_image."""

    slug: ClassVar[str] = "upload_image"
    summary: ClassVar[str] = "Store a picture"
    description: ClassVar[str | None] = (
        "The picture's URL opens with a plain GET and may be given wherever a picture is asked for, "
        "as `init_image`, `mask_image` or `url`. It lives as long as other temporary links, a day unless the "
        "server is set otherwise. Nothing is charged."
    )
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "base64_image": "data:image/png;base64,iVBORw0KGgo...",
        "image_type": "png",
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        **message("image uploaded"),
        "image_url": "http://127.0.0.1:8000/generations/0b9d2a7c-5c1e-4e0f-9a53-1f0f6f3f7c55.png",
    }

    base64_image: PictureField = Field(
        description="The picture as base64, with or without `data:image/...;base64,` before it, or a file."
    )
    image_type: Annotated[Literal["png", "jpg", "jpeg", "webp"], BeforeValidator(_lower)] | None = Field(
        None,
        description="The format in which it is stored. A picture that has another one is converted; without "
        "this field it is stored as it is.",
    )


async def upload_image(request: Request, account: Account, fields: UploadImage) -> dict[str, object]:
    picture, file = await read_upload(request, fields.base64_image, "base64_image")
    wanted = _SUFFIX.get(fields.image_type or "", fields.image_type)
    if wanted is not None and image_io.kind(file)[0] != wanted:
        format_ = "jpeg" if wanted == "jpg" else wanted
        file = await asyncio.to_thread(image_io.encode, picture, format_)
    url = await store_upload(request, file)
    return {"status": "success", **message("image uploaded"), "image_url": url}


router = APIRouter()
post(router, UploadImage, upload_image)
