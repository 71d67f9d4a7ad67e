"""The picture that a caller sends: fetched or decoded, within the limits."""

from __future__ import annotations

import asyncio

from fastapi import Request

from pipelines import image_io
from pipelines.errors import ImageTooLarge, InvalidImage
from pipelines.image_io import RGBImage
from server import errors
from server.http.services import services
from server.http.urls import public_url


async def read_picture(request: Request, given: str | bytes, field: str = "image") -> RGBImage:
    """Decode a picture given as base64, data URI, http(s) URL or file bytes; in a thread, within the limits.

    Raises:
        InvalidInputImage, BodyTooLarge, FieldError: in the caller's words.
    """
    parts = services(request)
    limits = picture_limits(request)
    try:
        if isinstance(given, str) and given.strip().lower().startswith(("http://", "https://")):
            url = given.strip()
            given = await _upload(request, url, field) or await parts.images.fetch(url)
        if isinstance(given, str):
            return await asyncio.to_thread(image_io.decode_text, given, limits)
        return await asyncio.to_thread(image_io.decode, given, limits)
    except ImageTooLarge as error:
        raise errors.BodyTooLarge(f"{field}: {error.problem}") from error
    except InvalidImage as error:
        raise errors.InvalidInputImage from error


def picture_limits(request: Request) -> image_io.Limits:
    """What the settings allow of a picture that comes in."""
    settings = services(request).settings
    return image_io.Limits(
        max_bytes=int(settings.max_image_mb * 1_000_000),
        max_pixels=int(settings.max_image_megapixels * 1_000_000),
    )


async def _upload(request: Request, url: str, field: str) -> bytes | None:
    """What lies in this server's own storage is read there: a server may not fetch from itself.

    Returns:
        None: the URL is another server's.
    Raises:
        FieldError: its retention is over.
    """
    address = f"{public_url(request)}/outputs/"
    if not url.startswith(address):
        return None
    name = url.removeprefix(address).partition("?")[0]
    try:
        return (await services(request).storage.get(name))[0]
    except errors.NotFound:
        raise errors.FieldError(field, "this upload does not exist any more") from None
