"""The name, the origin and the revision of something to be loaded, as a caller may give them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from fastapi import Request

from pipelines.weights.formats import NO_PICKLES, PICKLES
from server.errors import FieldError
from server.http.services import services
from server.loading.page_addresses import HUB_HOSTS, Address, NotAFile, file_address
from server.outside.public_http import NotReached

MAIN = "main"
"""The branch of a repository that is meant unless another one is named."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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


def read_origin(request: Request, given: str, field: str) -> Address:
    """The id of a repository of the hub, or a URL that may be fetched as far as a look at it can tell.

    Raises:
        FieldError: it is neither, is a page from which no file follows, or ends like a pickle.
    """
    own_hub = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    try:
        address = file_address(given, (*HUB_HOSTS, own_hub) if own_hub else HUB_HOSTS)
    except NotAFile as error:
        raise FieldError(field, str(error)) from error
    origin = address.origin
    try:
        ending = urlsplit(origin).path.lower() if "://" in origin else origin.lower()
    except ValueError as error:
        raise FieldError(field, "cannot be fetched: the URL is malformed") from error
    if ending.endswith(PICKLES):
        raise FieldError(field, NO_PICKLES)
    if "://" not in origin:
        if not _HUB.fullmatch(origin):
            raise FieldError(field, "must be an http or https URL, or a repository of the hub as owner/name")
        return address
    try:
        return Address(str(services(request).public_http.read(origin)))
    except NotReached as error:
        raise FieldError(field, f"cannot be fetched: {error}") from error


def one_revision(said: str, address: Address, field: str) -> str:
    """The branch, tag or commit that the caller and the address name.

    Raises:
        FieldError: they name two, or what is none.
    """
    check_revision(said, field)
    if address.revision is None:
        return said
    check_revision(address.revision, field)
    if said not in (MAIN, address.revision):
        raise FieldError(field, f"is {said}, and the address names {address.revision}")
    return address.revision
