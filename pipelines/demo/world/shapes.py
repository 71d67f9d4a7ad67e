"""The shapes of the little world, as outlines of area 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pipelines.control.skeletons import Point

SUPERSAMPLING = 4
"""How many times finer than the picture shapes are drawn in each direction, before pixels are averaged."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A shape as closed polygons with y downwards; the middle of the box around it is the origin.

    Attributes:
        outer: the outer polygon; the area inside it, without the hole, is 1.
        hole: the polygon of the hole; empty where there is none.
        centroid: the centroid of the area between both polygons.
    """

    outer: tuple[Point, ...]
    hole: tuple[Point, ...]
    centroid: Point

    @property
    def half_width(self) -> float:
        return max(x for x, _ in self.outer)

    @property
    def half_height(self) -> float:
        return max(y for _, y in self.outer)


def draw_mask(outline: Outline, center: Point, scale: float, width: int, height: int) -> Image.Image:
    """Draw how much of each pixel a shape covers, 0 .. 255.

    Args:
        center: the middle of the box around the shape, in pixels.
        scale: the square root of the shape's area, in pixels.
        width, height: size of the mask, in pixels.
    """
    fine = SUPERSAMPLING
    mask = Image.new("L", (width * fine, height * fine))
    draw = ImageDraw.Draw(mask)
    for polygon, value in ((outline.outer, 255), (outline.hole, 0)):
        if polygon:
            points = [((center[0] + x * scale) * fine, (center[1] + y * scale) * fine) for x, y in polygon]
            draw.polygon(points, fill=value)
    return mask.reduce(fine)


def _arc(radius: float, start: float, end: float, center_x: float = 0.0) -> list[Point]:
    """The points of an arc from one angle to another in degrees, about one point for every three degrees."""
    steps = max(1, round(abs(end - start) / 3))
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(center_x + radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _circle() -> list[Point]:
    return _arc(1, 0, 357)


def _square() -> list[Point]:
    return [(-1, -1), (1, -1), (1, 1), (-1, 1)]


def _triangle() -> list[Point]:
    return [(0, 0), (1, math.sqrt(3)), (-1, math.sqrt(3))]


def _star() -> list[Point]:
    turns = [math.radians(36 * corner - 90) for corner in range(10)]
    radii = (1, 0.42) * 5
    return [
        (radius * math.cos(turn), radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)
    ]


def _heart() -> list[Point]:
    turns = [math.radians(3 * step) for step in range(120)]
    return [
        (
            16 * math.sin(turn) ** 3,
            -13 * math.cos(turn) + 5 * math.cos(2 * turn) + 2 * math.cos(3 * turn) + math.cos(4 * turn),
        )
        for turn in turns
    ]


def _cross() -> list[Point]:
    quarter = [(1, -3), (1, -1), (3, -1)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [(float(x), float(y)) for corners in turned for x, y in corners]


def _crescent() -> list[Point]:
    """A disc without another one that has 0.8 of its radius and lies 0.45 to its right."""
    radius, offset = 0.8, 0.45
    tip_x = (offset**2 + 1 - radius**2) / (2 * offset)
    outer = math.degrees(math.acos(tip_x))
    inner = math.degrees(math.acos((tip_x - offset) / radius))
    return _arc(1, outer, 360 - outer) + _arc(radius, 360 - inner, inner, offset)[1:-1]


def _moments(polygon: list[Point]) -> tuple[float, float, float]:
    """The area of a polygon and the first moments of the area, by Green's theorem."""
    area = moment_x = moment_y = 0.0
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        cross = x0 * y1 - x1 * y0
        area += cross / 2
        moment_x += (x0 + x1) * cross / 6
        moment_y += (y0 + y1) * cross / 6
    sign = math.copysign(1, area)
    return sign * area, sign * moment_x, sign * moment_y


def _outline(outer: list[Point], hole: list[Point]) -> Outline:
    area, moment_x, moment_y = (a - b for a, b in zip(_moments(outer), _moments(hole), strict=True))
    xs, ys = zip(*outer, strict=True)
    middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    scale = math.sqrt(area)

    def moved(x: float, y: float) -> Point:
        return (x - middle[0]) / scale, (y - middle[1]) / scale

    return Outline(
        outer=tuple(moved(x, y) for x, y in outer),
        hole=tuple(moved(x, y) for x, y in hole),
        centroid=moved(moment_x / area, moment_y / area),
    )


_OUTER: dict[str, Callable[[], list[Point]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _circle,
    "crescent": _crescent,
}

OUTLINES = {
    shape: _outline(outer(), _arc(0.55, 0, 357) if shape == "ring" else []) for shape, outer in _OUTER.items()
}
"""The outline of each shape. Any two of them, filled and laid over each other by their centroids, share at
most 0.83 of their union."""

SHAPES = tuple(OUTLINES)
