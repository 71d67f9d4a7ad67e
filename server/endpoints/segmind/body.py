"""The body of a Segmind call, in any of the encodings that its clients use, as names and values."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from server.endpoints.fields import json_object
from server.errors import InvalidContentType, MalformedBody

PICTURE_NAMES = ("image", "file", "imageUrl", "init_image")
"""The names of a picture's field: the documented one, a second one in multipart forms, a legacy one, and one
that clients of other vendors' pages send."""
MASK_NAMES = ("mask", "maskUrl", "mask_image")
"""The names of a mask's field: the documented one, a legacy one, and one of other vendors' pages."""

_MOST_FIELDS = 1000
"""The most fields, and the most files, that a form may have."""


async def read_body(request: Request) -> dict[str, object]:
    """Parse a body by its content; the content type only decides where the content leaves a choice.

    Values are those of JSON, or texts of a form, or the bytes of an uploaded file. Where a name is repeated,
    its last value counts.

    Raises:
        MalformedBody: the body is not what its content type says.
        InvalidContentType: the body is neither JSON nor a form.
    """
    body = await request.body()
    encoding = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if encoding.endswith("json"):
        return json_object(body)
    if body.lstrip()[:1] == b"{":
        with suppress(MalformedBody):
            return json_object(body)
    match encoding:
        case "multipart/form-data":
            return await _parse_multipart(request, len(body))
        case "application/x-www-form-urlencoded":
            return _parse_form(body)
        case _:
            raise InvalidContentType


async def _parse_multipart(request: Request, size: int) -> dict[str, object]:
    try:
        async with request.form(max_fields=_MOST_FIELDS, max_files=_MOST_FIELDS, max_part_size=size) as form:
            return _fields([(name, await _value(item)) for name, item in form.multi_items()])
    except (HTTPException, ValueError) as error:
        raise MalformedBody("body: must be valid multipart/form-data") from error


async def _value(item: UploadFile | str) -> object:
    return await item.read() if isinstance(item, UploadFile) else item


def _parse_form(body: bytes) -> dict[str, object]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise MalformedBody("body: must be a valid form in UTF-8") from None
    # Unescaped base64 loses its plus signs in a form.
    return _fields(
        [
            (name, text.replace(" ", "+") if name in (*PICTURE_NAMES, *MASK_NAMES) else text)
            for name, text in pairs
        ]
    )


def _fields(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    # A file field that was left empty in a browser arrives as a part without bytes.
    return {name: None if value == b"" else value for name, value in pairs}
