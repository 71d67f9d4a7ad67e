"""The name, the origin and the revision of something to be loaded, as a caller may give them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from fastapi import Request

from pipelines.weights.formats import NO_PICKLES, PICKLES
from server.errors import FieldError
from server.http.services import services
from server.outside.public_http import NotReached

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


def check_name(name: str, field: str) -> str:
    """The name, if a load may have it.

    Raises:
        FieldError: it has other characters, or too many.
    """
    if not _NAME.fullmatch(name):
        raise FieldError(
            field, "must be 1 to 128 letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    return name


def check_revision(revision: str, field: str) -> None:
    """Look whether a text can be a branch, tag or commit.

    Raises:
        FieldError: it cannot.
    """
    if not _REVISION.fullmatch(revision):
        raise FieldError(field, "must be the name of a branch, tag or commit")


def read_origin(request: Request, given: str, field: str) -> str:
    """The id of a repository of the hub, or a URL that may be fetched as far as a look at it can tell.

    Raises:
        FieldError: it is neither, or ends like a pickle.
    """
    given = given.strip()
    if page := _HUB_PAGE.fullmatch(given):
        given = page[1]
    ending = urlsplit(given).path.lower() if "://" in given else given.lower()
    if ending.endswith(PICKLES):
        raise FieldError(field, NO_PICKLES)
    if _HUB.fullmatch(given):
        return given
    if "://" not in given:
        raise FieldError(field, "must be an http or https URL, or a repository of the hub as owner/name")
    try:
        return str(services(request).public_http.read(given))
    except NotReached as error:
        raise FieldError(field, f"cannot be fetched: {error}") from error
