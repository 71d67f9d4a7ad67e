"""Pictures that a caller uploads as base64, to be named by their URLs in later calls."""

from __future__ import annotations

import asyncio
import uuid

from fastapi import Request

from pipelines import image_io
from pipelines.image_io import RGBImage
from server.errors import FieldError, InvalidInputImage
from server.http.pictures import picture_limits, read_picture
from server.http.services import services
from server.http.urls import output_url, public_url


async def read_upload(request: Request, given: str | bytes, field: str) -> tuple[RGBImage, bytes]:
    """The picture that a field has as base64 or as a file, and its file; a URL is refused, since an upload is
    asked for.

    Raises:
        FieldError, FieldTooLarge: naming the field.
    """
    if isinstance(given, str) and "://" in given[:16]:
        raise FieldError(field, "must be base64 text")
    try:
        picture = await read_picture(request, given, field)
    except InvalidInputImage:
        problem = "must be a PNG, JPEG, WebP, GIF, BMP or TIFF picture in base64"
        raise FieldError(field, problem) from None
    if isinstance(given, bytes):
        return picture, given
    return picture, await asyncio.to_thread(image_io.base64_bytes, given, picture_limits(request))


async def store_upload(request: Request, file: bytes) -> str:
    """Store a picture's file for as long as temporary links live; its URL opens with a plain GET."""
    suffix, content_type = image_io.kind(file)
    name = f"{uuid.uuid4()}.{suffix}"
    await services(request).storage.put(name, file, content_type, temporary=True)
    return output_url(public_url(request), name)
