"""The body of a call, in any of the encodings that clients use, as names and values."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import cast
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.endpoints.charsets import OtherCharset, charset_named, decoded, decoded_json, parameter
from server.errors import FieldError, InvalidContentType, MalformedBody, UnreadableCoding

MOST_VALUES = 50_000
"""The most values that a body may have. Pictures and prompts are long, but few. This many values are parsed
in hundredths of a second; the millions that fit into a body would hold up all other answers for seconds."""

_BEFORE_VALUES = (b",", b"[", b"{")
"""The characters of JSON that every value but the outermost comes after; they may stand in texts too."""

_MULTIPART = "multipart/form-data"
_FORMS = (_MULTIPART, "application/x-www-form-urlencoded")

_MOST_FIELDS = 1000
"""The most fields, and the most files, that a form may have."""

_CODINGS = frozenset(
    {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "bzip2", "lzma", "xz", "dcb", "dcz"}
)
"""The words of ``Content-Encoding`` that mean a compression. Others are found there too, ``utf-8`` or
``identity`` for one, and say nothing about how the body is read."""

_GZIP = b"\x1f\x8b"
"""The first bytes of a body that is compressed although no header says so."""

_CHARSET = re.compile(r""";\s*charset\s*=\s*("[^"]*"|[^;]*)""", re.IGNORECASE)
"""The charset among the parameters of a content type."""

_CHARSET_FIELD = "_charset_"
"""The field of a form whose value names the charset of all its texts."""


async def read_body(request: Request, picture_names: Collection[str] = ()) -> dict[str, object]:
    """Parse a body by its content; the content type only decides where the content leaves a choice.

    Values are those of JSON, or texts of a form, or the bytes of an uploaded file. Where a name is repeated,
    its last value counts.

    Args:
        picture_names: the fields that hold pictures.
    Raises:
        UnreadableCoding: the body is compressed.
        MalformedBody: the body is not what its content type says.
        InvalidContentType: the body is neither JSON nor a form.
    """
    body = await request.body()
    _refuse_compressed(request, body)
    header = request.headers.get("content-type", "")
    named = parameter(header, "charset")
    encoding = header.partition(";")[0].strip().lower()
    if encoding.endswith("json"):
        return json_object(body, named)
    is_form = encoding in _FORMS
    if _begins_as_json(body):
        if not is_form:
            _json_text(body, named)  # says what is wrong with its characters, if anything is
        with suppress(MalformedBody):
            return json_object(body, named)
    if not is_form:
        raise InvalidContentType
    if encoding == _MULTIPART:
        return await _parse_multipart(header, body, named, picture_names)
    return _parse_form(body, named, picture_names)


def read_query(request: Request, picture_names: Collection[str] = ()) -> dict[str, object]:
    """Parse what stands behind the question mark of a call's URL, as a form is parsed.

    Raises:
        MalformedBody, FieldError: it is no form, or its text is not UTF-8.
    """
    return _parse_form(request.scope["query_string"], None, picture_names)


def _begins_as_json(body: bytes) -> bool:
    beginning = body.lstrip()[:64]
    return beginning.decode(json.detect_encoding(beginning), "ignore").lstrip().startswith("{")


def json_object(body: bytes, charset: str | None = None) -> dict[str, object]:
    """Parse a body that has to be a JSON object.

    Args:
        charset: the charset that the caller names; without one, JSON is UTF-8.
    Raises:
        MalformedBody: the body is no such object, or parsing it would take long.
    """
    if sum(map(body.count, _BEFORE_VALUES)) > MOST_VALUES:
        raise MalformedBody(f"body: must have at most {MOST_VALUES} commas and brackets")
    text = _json_text(body, charset)
    # No thread would be of use: the parser lets no other run.
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedBody("body: must be valid JSON") from None
    if not isinstance(parsed, dict):
        raise MalformedBody("body: must be a JSON object")
    return cast("dict[str, object]", parsed)


def _json_text(body: bytes, charset: str | None) -> str:
    return decoded_json(body, charset_named(charset, "Content-Type") if charset else None)


def _refuse_compressed(request: Request, body: bytes) -> None:
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    coding = next((word.strip() for word in named if word.strip() in _CODINGS), None)
    if coding or body.startswith(_GZIP):
        raise UnreadableCoding(coding or "gzip")


async def _parse_multipart(
    header: str, body: bytes, named: str | None, picture_names: Collection[str]
) -> dict[str, object]:
    async def whole() -> AsyncGenerator[bytes]:
        yield body

    # Every byte is one character of Latin-1 and the other way round: so texts come as they were sent.
    headers = Headers({"content-type": f"{_CHARSET.sub('', header)}; charset=latin-1"})
    parser = _Parts(
        headers, whole(), max_fields=_MOST_FIELDS, max_files=_MOST_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        raise MalformedBody("body: must be valid multipart/form-data") from error
    items = [(name, await _value(item)) for name, item in form.multi_items()]
    await form.close()
    return _fields(items, named, parser.charsets, picture_names)


class _Parts(MultiPartParser):
    """A parser that remembers which charsets the parts name. ``charsets``: of each text, in their order."""

    def __init__(self, *args: object, **limits: int) -> None:
        super().__init__(*args, **limits)  # pyright: ignore[reportArgumentType]
        self.charsets: list[str | None] = []

    def on_part_end(self) -> None:
        headers = {name.lower(): value for name, value in self._current_part.item_headers}
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        self.charsets.append(parameter(content_type, "charset"))
        super().on_part_end()


async def _value(item: UploadFile | str) -> str | bytes:
    return await item.read() if isinstance(item, UploadFile) else item


def _parse_form(body: bytes, named: str | None, picture_names: Collection[str]) -> dict[str, object]:
    try:
        sent = body.decode("latin-1")
        pairs = parse_qsl(sent, keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise MalformedBody("body: must be a valid form") from None
    # Unescaped base64 loses its plus signs in a form.
    pairs = [(name, text.replace(" ", "+") if name in picture_names else text) for name, text in pairs]
    return _fields(pairs, named, repeat(None), picture_names)


def _fields(
    pairs: Sequence[tuple[str, str | bytes]],
    named: str | None,
    own: Iterable[str | None],
    picture_names: Collection[str],
) -> dict[str, object]:
    """The fields of a form whose texts have one character for each byte that was sent.

    Args:
        named: the charset of the form's content type.
        own: the charset that each field names for itself.
        picture_names: the fields that may be bytes and no text: some clients send files without a name.
    Raises:
        MalformedBody: a charset is not known.
        FieldError: a text is not of its charset.
    """
    of_all = next((text for name, text in pairs if name == _CHARSET_FIELD and isinstance(text, str)), "")
    fields: dict[str, object] = {}
    for (sent_name, value), its_own in zip(pairs, own, strict=False):
        name = _text("body", sent_name, None)
        if isinstance(value, bytes):
            # A file field that was left empty in a browser arrives as a part without bytes.
            fields[name] = value or None
            continue
        try:
            fields[name] = _text(name, value, its_own or of_all.strip() or named)
        except FieldError:
            if name not in picture_names:
                raise
            fields[name] = value.encode("latin-1")
    return fields


def _text(where: str, sent: str, named: str | None) -> str:
    charset = charset_named(named, where) if named else None
    try:
        return decoded(sent.encode("latin-1"), charset)
    except OtherCharset as error:
        raise FieldError(where, str(error)) from None
