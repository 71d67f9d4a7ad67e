"""The characters of a body: read as it says, else as UTF-8; never guessed, never replaced."""

from __future__ import annotations

import codecs
import json
from email.message import Message

from server.errors import MalformedBody

_KNOWN = frozenset(
    codecs.lookup(name).name
    for name in (
        *(
            "ascii",
            "utf-8",
            "utf-8-sig",
            "utf-16",
            "utf-16-le",
            "utf-16-be",
            "utf-32",
            "utf-32-le",
            "utf-32-be",
        ),
        *(f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
        *(f"cp{page}" for page in (437, 850, 866, 874, *range(1250, 1259))),
        *("koi8-r", "koi8-u", "mac-roman", "shift_jis", "cp932", "euc_jp", "iso2022_jp", "gb2312", "gbk"),
        *("gb18030", "big5", "big5hkscs", "euc_kr", "cp949"),
    )
)
"""Python's names of the charsets that a caller may name; its further codecs are no charsets."""


class OtherCharset(ValueError):
    """Bytes are of another charset than they should be; the text belongs behind the name of their place."""

    def __init__(self, charset: str, position: int) -> None:
        super().__init__(f"must be {charset.upper()}, and is not at byte {position}")


def parameter(header: str, name: str) -> str | None:
    """A parameter of a header such as ``text/plain; charset=utf-8``; None where there is none."""
    parsed = Message()
    parsed["content-type"] = header.replace("\n", " ").replace("\r", " ")
    value = parsed.get_param(name)
    return value.strip() if isinstance(value, str) and value.strip() else None


def charset_named(name: str, where: str) -> str:
    """Python's name of a charset that a caller names.

    Args:
        where: what named it, for the error.
    Raises:
        MalformedBody: it is not known.
    """
    try:
        found = codecs.lookup(name.strip("'\" ")).name
    except (LookupError, ValueError):
        found = ""
    if found not in _KNOWN:
        shown = name[:40].encode("ascii", "replace").decode()
        raise MalformedBody(f"{where}: the charset {shown} is not known; send UTF-8")
    return found


def decoded(text: bytes, charset: str | None) -> str:
    """The characters of a text, without the mark that may stand before them.

    Args:
        charset: the charset that was named for it; None is UTF-8.
    Raises:
        OtherCharset
    """
    known = charset or "utf-8"
    try:
        return text.decode(known).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise OtherCharset(known, error.start) from None


def decoded_json(text: bytes, charset: str | None) -> str:
    """The characters of JSON. Its first bytes tell UTF-16 and UTF-32, even without a mark.

    Raises:
        MalformedBody: the bytes are of another charset than the named one, or than UTF-8.
    """
    seen = json.detect_encoding(text)
    wide = seen.startswith(("utf-16", "utf-32"))
    try:
        return decoded(text, seen if wide else charset)
    except OtherCharset as error:
        raise MalformedBody("body: must be valid JSON" if wide else f"body: {error}") from None
