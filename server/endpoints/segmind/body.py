"""The body of a Segmind call, and the names of a picture in it."""

from __future__ import annotations

from fastapi import Request

from server.endpoints import body

PICTURE_NAMES = ("image", "file", "imageUrl", "init_image")
"""The names of a picture's field: the documented one, a second one in multipart forms, a legacy one, and one
that clients of other vendors' pages send."""
MASK_NAMES = ("mask", "maskUrl", "mask_image")
"""The names of a mask's field: the documented one, a legacy one, and one of other vendors' pages."""


async def read_body(request: Request) -> dict[str, object]:
    """See `server.endpoints.body.read_body`; there has to be a body.

    Raises:
        UnreadableCoding, MalformedBody, InvalidContentType: it cannot be read, or is empty.
    """
    return await body.read_body(request, (*PICTURE_NAMES, *MASK_NAMES))
