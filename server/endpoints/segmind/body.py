"""The body of a Segmind call, and the names of a picture in it."""

from __future__ import annotations

from fastapi import Request

from server.endpoints import body

PICTURE_NAMES = ("image", "file", "imageUrl")
"""The names of a picture's field: the documented one, a second one in multipart forms, a legacy one."""


async def read_body(request: Request) -> dict[str, object]:
    """See `server.endpoints.body.read_body`; there has to be a body.

    Raises:
        UnreadableCoding, MalformedBody, InvalidContentType: it cannot be read, or is empty.
    """
    return await body.read_body(request, PICTURE_NAMES)
