"""The skeleton that demo mode gives to the pose endpoint; torch-free."""

from __future__ import annotations

from pipelines.image_io import RGBImage
from pipelines.skeletons import Person, draw_skeletons

STANDING = Person(
    body=(
        *((0.50, 0.14), (0.50, 0.26)),
        *((0.41, 0.27), (0.36, 0.40), (0.33, 0.52)),
        *((0.59, 0.27), (0.66, 0.38), (0.62, 0.25)),
        *((0.45, 0.52), (0.44, 0.71), (0.43, 0.90)),
        *((0.55, 0.52), (0.57, 0.71), (0.58, 0.90)),
        *((0.48, 0.12), (0.52, 0.12), (0.46, 0.13), (0.54, 0.13)),
    )
)
"""A person who stands and waves."""


def demo_skeleton(width: int, height: int) -> RGBImage:
    """`STANDING` as OpenPose would draw it."""
    return draw_skeletons(width, height, [STANDING])
