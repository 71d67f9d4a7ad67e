"""All tables together, and their rows as cases of a test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.contract.parameters import (
    enterprise_drawing,
    enterprise_loads,
    enterprise_others,
    enterprise_pictures,
    segmind_others,
    segmind_pages,
    segmind_stable_diffusion,
)
from tests.contract.parameters.rows import Page

SEGMIND_PAGES = (*segmind_pages.PAGES, *segmind_stable_diffusion.PAGES, *segmind_others.PAGES)

ENTERPRISE_PAGES = (
    *enterprise_drawing.PAGES,
    *enterprise_pictures.PAGES,
    *enterprise_loads.PAGES,
    *enterprise_others.PAGES,
)


def cases(pages: Iterable[Page]) -> list[Any]:
    """Arguments ``page, row`` of a test that looks at each row."""
    return [pytest.param(page, row, id=f"{page.path} {row}") for page in pages for row in page.rows]
