"""The conditions and the range of a GET on a stored file, as RFC 9110 reads them (sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.datastructures import Headers

_RANGE = re.compile(r"bytes[ \t]*=[ \t,]*(\d*)[ \t]*-[ \t]*(\d*)[ \t,]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[^"]*"')
_BEYOND_ANY_FILE = 2**63


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a file that a request is to get.

    Attributes:
        status: 200 (all of it), 206 (a part), 304 (nothing: the caller has it), 412 (nothing: it is not the
            one that was meant), 416 (nothing: the part lies outside).
        start, end: the first byte, and the one after the last.
    """

    status: int
    start: int = 0
    end: int = 0


def select(headers: Headers, *, size: int, etag: str, last_modified: datetime) -> Selection:
    """What a GET with these headers gets of a file.

    Args:
        size: bytes of the file.
        etag: its strong validator, in quotation marks.
    """
    modified = last_modified.replace(microsecond=0)
    if failed := _precondition(headers, etag, modified):
        return Selection(failed)
    asked = headers.get("range", "")
    if asked and _range_is_meant(headers.get("if-range"), etag, modified):
        return _part(asked, size)
    return Selection(200, 0, size)


def http_date(moment: datetime) -> str:
    """A moment as HTTP headers say it."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def _precondition(headers: Headers, etag: str, modified: datetime) -> int | None:
    """The status of a request whose conditions do not hold."""
    if (wanted := headers.get("if-match")) is not None:
        if wanted.strip() != "*" and etag not in _tags(wanted):
            return 412
    elif (since := _date(headers.get("if-unmodified-since"))) and modified > since:
        return 412
    if (known := headers.get("if-none-match")) is not None:
        # What stands in between may have made the tag a weak one, as those do that compress on the way.
        held = {tag.removeprefix("W/") for tag in _tags(known)}
        return 304 if known.strip() == "*" or etag in held else None
    since = _date(headers.get("if-modified-since"))
    return 304 if since and modified <= since else None


def _range_is_meant(validator: str | None, etag: str, modified: datetime) -> bool:
    """Whether the range is wanted of the file that is there now; if not, all of it is sent."""
    if validator is None:
        return True
    if '"' in validator:
        return validator.strip() == etag
    return _date(validator) == modified


def _part(asked: str, size: int) -> Selection:
    """One range; several at once, another unit and what is no range are answered with all of the file."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]):
        return Selection(200, 0, size)
    if not found[1]:
        length = _number(found[2])
        if not length:
            return Selection(416)
        return Selection(206, max(0, size - length), size) if size else Selection(200)
    start = _number(found[1])
    last = _number(found[2]) if found[2] else _BEYOND_ANY_FILE
    if last < start:
        return Selection(200, 0, size)
    return Selection(206, start, min(last + 1, size)) if start < size else Selection(416)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < 19 else _BEYOND_ANY_FILE


def _tags(text: str) -> Iterable[str]:
    return _TAG.findall(text)


def _date(text: str | None) -> datetime | None:
    """The moment of a header; None where there is none that can be read."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
