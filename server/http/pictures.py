"""The picture that a caller sends: fetched or decoded, within the limits."""

from __future__ import annotations

import asyncio
from typing import TypeGuard

from fastapi import Request

from pipelines import image_io
from pipelines.errors import ImageTooLarge, InvalidImage
from pipelines.image_io import RGBImage
from server import errors
from server.http.services import services
from server.http.urls import public_url, stored_name
from server.outside.remote_images import NotFetched, TooLargeToFetch


async def read_picture(
    request: Request, given: str | bytes, field: str = "image", *, mask: bool = False
) -> RGBImage:
    """Decode a picture given as base64, data URI, http(s) URL or file bytes; in a thread, within the limits.

    Args:
        mask: whether it says what is to be repainted; see `image_io.decode_mask`.
    Raises:
        InvalidInputImage: the bytes are no picture.
        FieldTooLarge, FieldError: naming the field.
    """
    server = services(request)
    limits = picture_limits(request)
    try:
        if is_url(given):
            url = given.strip()
            given = await _stored(request, url) or await server.images.fetch(url)
        if isinstance(given, str):
            given = await asyncio.to_thread(image_io.base64_bytes, given, limits)
        return await asyncio.to_thread(image_io.decode_mask if mask else image_io.decode, given, limits)
    except errors.NotFound:
        raise errors.FieldError(field, "this upload does not exist any more") from None
    except NotFetched as error:
        raise errors.FieldError(field, str(error)) from error
    except TooLargeToFetch as error:
        raise errors.FieldTooLarge(field, str(error)) from error
    except ImageTooLarge as error:
        raise errors.FieldTooLarge(field, error.problem) from error
    except InvalidImage as error:
        raise errors.InvalidInputImage(error.problem) from error


def is_url(given: str | bytes | None) -> TypeGuard[str]:
    """Whether a picture was sent as an http or https URL."""
    return isinstance(given, str) and given.strip().lower().startswith(("http://", "https://"))


def picture_limits(request: Request) -> image_io.Limits:
    """The limits that the settings set for a picture that a caller sends."""
    settings = services(request).settings
    return image_io.Limits(
        max_bytes=int(settings.max_image_mb * 1_000_000),
        max_pixels=int(settings.max_image_megapixels * 1_000_000),
    )


async def _stored(request: Request, url: str) -> bytes | str | None:
    """Read what a URL of this server names from its storage: a server may not fetch from itself.

    It has many names: localhost, an address, a proxy's host. So a URL of another host is its own where the
    unguessable name behind it lies in storage.

    Returns:
        The file's bytes, or base64 text where it holds such; None: the URL is another server's.
    Raises:
        NotFound: the URL begins as this caller's URLs of outputs do, and the file's retention is over.
    """
    name = stored_name(url)
    if name is None:
        return None
    try:
        data, content_type = await services(request).storage.get(name)
    except errors.NotFound:
        if url.startswith(public_url(request)):
            raise
        return None
    return data.decode("ascii", "replace") if content_type == "text/plain" else data
