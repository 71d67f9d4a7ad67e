"""The largest result of an enlargement, in both dialects."""

from __future__ import annotations

from server.errors import FieldError

MOST_PIXELS = 32_000_000
"""The most pixels that a result may have: more would take an engine's memory and minutes of its time."""


def refuse_too_large(width: int, height: int) -> None:
    """Refuse a result of too many pixels.

    Raises:
        FieldError: names ``scale``, and says how large the result would be.
    """
    if width * height > MOST_PIXELS:
        megapixels = f"{width * height / 1e6:.1f} megapixels"
        raise FieldError("scale", f"would make {megapixels}; at most {MOST_PIXELS / 1e6:g} may come out")
