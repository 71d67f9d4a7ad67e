"""The first bytes of a download, kept for the next attempt, and what is known of the file that they begin."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
from pydantic import BaseModel, ValidationError

_SIGNATURES = re.compile(
    r"(x-(amz|goog|oss|cos|ms)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|token|access_token|response-content-.*|hdnea|verify)",
    re.IGNORECASE,
)
"""The parameters of a query that say who may read a file and until when, not which file it is."""
_AZURE_SIGNATURES = re.compile(r"sig|s[eprtvk]|spr|rsc[cdelt]|sk(oid|tid|t|e|s|v)")
"""The same of a shared access signature, which has ``sig`` among them; alone, these could mean anything."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_STEADY_S = 60
"""The seconds after which a file that has not changed is taken to have this second's version only."""


class Version(BaseModel):
    """The version of a file that a server has sent the beginning of.

    Attributes:
        etag: its strong ETag; empty where the server gave none.
        last_modified: the date of its last change, where that tells versions apart; empty where it does not.
        total: its bytes; 0 where the server has not said.
    """

    etag: str = ""
    last_modified: str = ""
    total: int = 0

    @classmethod
    def of(cls, response: httpx.Response, total: int) -> Version:
        """The version that an answer sends, or a part of which it sends."""
        etag = response.headers.get("etag", "")
        return cls(
            etag="" if etag.startswith("W/") else etag,
            last_modified=_steady_date(response),
            total=total,
        )

    def is_that_of(self, other: Version) -> bool:
        """Whether it is certain that both are the same version: they share a mark, and differ in none."""
        pairs = [(self.etag, other.etag), (self.last_modified, other.last_modified)]
        shared = [pair for pair in pairs if all(pair)]
        totals = {self.total, other.total} - {0}
        return bool(shared) and all(ours == theirs for ours, theirs in shared) and len(totals) <= 1


class Partial:
    """The partial file of one URL, in the folder of partial files.

    Attributes:
        path: the file; it need not be there.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.path = folder / hashlib.sha256(_without_signatures(url).encode()).hexdigest()
        self._record = self.path.with_suffix(".json")

    @property
    def size(self) -> int:
        """The bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version:
        """The version of the file that they begin; one without any mark where that is not known."""
        try:
            return Version.model_validate_json(self._record.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Version()

    def begin(self, version: Version) -> None:
        """Forget what is here, and record the version that comes now."""
        self.path.unlink(missing_ok=True)
        self._record.write_text(version.model_dump_json())

    def headers(self) -> dict[str, str]:
        """The headers that ask for the rest of the same version; none where it could not be told apart."""
        mark = self.version.etag or self.version.last_modified
        size = self.size
        return {"Range": f"bytes={size}-", "If-Range": mark} if size and mark else {}

    def continues(self, response: httpx.Response) -> bool:
        """Whether a partial answer goes on with what is here, and is certainly of the same version."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != self.size:
            return False
        total = 0 if found[2] == "*" else int(found[2])
        return self.size == 0 or self.version.is_that_of(Version.of(response, total))

    def remove(self) -> None:
        """Remove the file and what is known of it."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def move_to(self, path: Path) -> None:
        """Move the file to its place; what is known of it is forgotten."""
        self.path.replace(path)
        self._record.unlink(missing_ok=True)


def total_of(response: httpx.Response, here: int) -> int:
    """The bytes of the whole file by an answer that sends it from ``here`` on; 0 where it does not say."""
    if found := _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "")):
        return 0 if found[2] == "*" else int(found[2])
    stated = response.headers.get("content-length", "")
    return here + int(stated) if stated.isdecimal() else 0


def _steady_date(response: httpx.Response) -> str:
    """The date of a file's last change if it is old enough to tell versions apart (RFC 9110, 8.8.2.2)."""
    said = response.headers.get("last-modified", "")
    try:
        changed = parsedate_to_datetime(said)
        now = parsedate_to_datetime(response.headers.get("date", "")) if "date" in response.headers else None
        age = (now or datetime.now(UTC)) - changed
    except (ValueError, TypeError):  # TypeError: one of them names no time zone
        return ""
    return said if age.total_seconds() >= _STEADY_S else ""


def _without_signatures(url: str) -> str:
    """A URL without the parameters that change each time the same file is signed for."""
    split = urlsplit(url)
    query = parse_qsl(split.query, keep_blank_values=True)
    signed = any(name == "sig" for name, _ in query)
    kept = [
        (name, value)
        for name, value in query
        if not _SIGNATURES.fullmatch(name) and not (signed and _AZURE_SIGNATURES.fullmatch(name))
    ]
    return url if len(kept) == len(query) else urlunsplit(split._replace(query=urlencode(kept)))
