"""Limits of a picture's width and height; a panorama may be wider."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema

from server.endpoints.fields import WholeNumber

SMALLEST_SIDE, LARGEST_SIDE, WIDEST_PANORAMA = 256, 1024, 2048

Side = Annotated[
    WholeNumber,
    Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE, multiple_of=8),
    # Checked in this order the limits have no names of JSON Schema.
    WithJsonSchema({"type": "integer", "minimum": SMALLEST_SIDE, "maximum": LARGEST_SIDE, "multipleOf": 8}),
]


def _within_the_width(width: int, others: ValidationInfo) -> int:
    """The width, if ``panorama``, which is declared before ``width``, allows it."""
    widest = WIDEST_PANORAMA if others.data.get("panorama") else LARGEST_SIDE
    if not SMALLEST_SIDE <= width <= widest:
        raise ValueError(f"must be between {SMALLEST_SIDE} and {widest}")
    return width


Width = Annotated[
    WholeNumber,
    AfterValidator(_within_the_width),
    Field(multiple_of=8),
    WithJsonSchema(
        {"type": "integer", "minimum": SMALLEST_SIDE, "maximum": WIDEST_PANORAMA, "multipleOf": 8}
    ),
]
