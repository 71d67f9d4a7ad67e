"""The size of a result whose page has no width and height: it keeps the picture's aspect ratio."""

from __future__ import annotations

import math

MEGAPIXEL = 1024 * 1024
MULTIPLE = 64


def size_of_a_megapixel(width: int, height: int) -> tuple[int, int]:
    """The size of about one megapixel that has the same aspect ratio, held between 1:4 and 4:1."""
    return _rounded(width, height, math.sqrt(MEGAPIXEL / (width * height)), 2048)


def size_of_sd15(width: int, height: int) -> tuple[int, int]:
    """The size whose shorter side is the 512 pixels that SD1.5 knows, held between 1:2 and 2:1."""
    return _rounded(width, height, 512 / min(width, height), 1024)


def _rounded(width: int, height: int, scale: float, longest: int) -> tuple[int, int]:
    wanted = (round(side * scale / MULTIPLE) * MULTIPLE for side in (width, height))
    fitted = [min(max(side, 512), longest) for side in wanted]
    return fitted[0], fitted[1]
