"""How the pages of the segmind dialect refuse a body."""

from __future__ import annotations

import pytest

from pipelines.weights.manifest import Manifest
from server.endpoints.fields import read
from server.endpoints.segmind.page import Page
from server.errors import FieldError

NO_MANIFEST = Manifest(pipelines={})
"""What a page needs that names nothing in the manifest but its checkpoint."""


def refused(page: type[Page], /, **body: object) -> tuple[int, str]:
    """The status and the text with which a page refuses a body."""
    with pytest.raises(FieldError) as raised:
        read(page, body)
    return raised.value.status, str(raised.value)
