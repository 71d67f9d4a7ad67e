"""People's joints -> the picture that OpenPose draws of them; torch-free."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pipelines.image_io import RGBImage

Point = tuple[float, float]
Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
"""OpenPose's colour of each joint of the body; a limb has the colour of its number at 60 %."""

LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12)),
    *((12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
"""The joints at the two ends of each limb, in OpenPose's order."""

FINGER_BONES = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
"""The joints at the two ends of each bone of a hand: five fingers of four bones, from the wrist (0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The joints of one person, as parts of the picture's width and height; None for a joint not in sight.

    Attributes:
        body: the COCO model's 18 joints: nose, neck, right arm, left arm, right leg, left leg, eyes, ears.
        hands: 21 joints each.
        face: any number of points.
    """

    body: Sequence[Point | None]
    hands: Sequence[Sequence[Point | None]] = ()
    face: Sequence[Point | None] = ()


def draw_skeletons(width: int, height: int, people: Sequence[Person]) -> RGBImage:
    """Limbs and joints on black, 4 pixels thick at 512 pixels and thicker in proportion."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    radius = max(4.0, min(width, height) / 128)

    def places(points: Sequence[Point | None]) -> list[Point | None]:
        return [point and (point[0] * width, point[1] * height) for point in points]

    for person in people:
        _draw_body(draw, places(person.body), radius)
        for hand in person.hands:
            _draw_hand(draw, places(hand), radius)
        for place in places(person.face):
            if place:
                draw.circle(place, 0.75 * radius, (255, 255, 255))
    return RGBImage(width, height, picture.tobytes())


def _draw_body(draw: ImageDraw.ImageDraw, places: Sequence[Point | None], radius: float) -> None:
    for (first, second), (red, green, blue) in zip(LIMBS, COLORS, strict=False):
        start, end = places[first], places[second]
        if start and end:
            draw.polygon(_ellipse(start, end, radius), (red * 6 // 10, green * 6 // 10, blue * 6 // 10))
    for place, color in zip(places, COLORS, strict=True):
        if place:
            draw.circle(place, radius, color)


def _draw_hand(draw: ImageDraw.ImageDraw, places: Sequence[Point | None], radius: float) -> None:
    for number, (first, second) in enumerate(FINGER_BONES):
        start, end = places[first], places[second]
        if start and end:
            red, green, blue = colorsys.hsv_to_rgb(number / len(FINGER_BONES), 1.0, 1.0)
            color = (round(red * 255), round(green * 255), round(blue * 255))
            draw.line([start, end], color, max(2, round(radius / 2)))
    for place in places:
        if place:
            draw.circle(place, radius, (0, 0, 255))


def _ellipse(start: Point, end: Point, radius: float) -> list[Point]:
    """The outline of an ellipse whose long axis goes from start to end."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    along = ((end[0] - start[0]) / 2, (end[1] - start[1]) / 2)
    length = max(math.hypot(*along), 1e-6)
    across = (-along[1] / length * radius, along[0] / length * radius)
    turns = [2 * math.pi * step / 36 for step in range(36)]
    return [
        (
            middle[0] + along[0] * math.cos(turn) + across[0] * math.sin(turn),
            middle[1] + along[1] * math.cos(turn) + across[1] * math.sin(turn),
        )
        for turn in turns
    ]
