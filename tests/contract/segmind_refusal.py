"""How the pages of the segmind dialect refuse a body."""

from __future__ import annotations

import pytest

from pipelines.weights.manifest import Manifest
from server.endpoints.fields import read
from server.endpoints.segmind.page import Page
from server.errors import FieldError

CHECKPOINTS = {
    "stable-diffusion-v1-5": {"family": "sd15", "parts": {"pipeline": {"folder": "sd15"}}},
    "sdxl": {"family": "sdxl", "parts": {"pipeline": {"folder": "sdxl"}}},
}
"""What weights.yaml says of the checkpoints that the pages of Stable Diffusion draw with."""
NO_MANIFEST = Manifest(pipelines={})
"""The manifest of a server that has nothing to draw with."""


def refused(page: type[Page], /, **body: object) -> tuple[int, str]:
    """The status and the text with which a page refuses a body."""
    with pytest.raises(FieldError) as raised:
        read(page, body)
    return raised.value.status, str(raised.value)
