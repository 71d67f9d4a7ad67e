"""A person in a pose, as the little world's coloured figure and as the skeleton that OpenPose draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pipelines.control.skeletons import Color, Person, Point, draw_skeletons
from pipelines.demo.world.palette import COLORS, PALETTE, lab, mix
from pipelines.demo.world.shapes import SUPERSAMPLING
from pipelines.image_io import RGBImage, from_pil

STANDING = Person(
    body=(
        *((0.50, 0.14), (0.50, 0.26)),
        *((0.41, 0.27), (0.33, 0.38), (0.26, 0.48)),
        *((0.59, 0.27), (0.72, 0.30), (0.78, 0.18)),
        *((0.45, 0.52), (0.42, 0.71), (0.40, 0.90)),
        *((0.55, 0.52), (0.58, 0.71), (0.60, 0.90)),
        *((0.48, 0.12), (0.52, 0.12), (0.46, 0.13), (0.54, 0.13)),
    )
)
"""A person who stands and waves."""

NOSE, NECK, RIGHT_HIP, LEFT_HIP = 0, 1, 8, 11
RIGHT_LIMBS = ((2, 3, 4), (8, 9, 10))
LEFT_LIMBS = ((5, 6, 7), (11, 12, 13))
"""The joints of the limbs on each side: shoulder, elbow and wrist; hip, knee and ankle."""
TRUNK = 0.3
"""The distance from the neck to the middle of the hips, in parts of the figure's height."""
HEAD, THROAT, TRUNK_EDGE, LIMB, HAND = 0.09, 0.032, 0.035, 0.036, 0.05
"""Radii in parts of the figure's height; feet are as large as hands."""

_TINTED = 0.5
_CONTRAST = 35
"""The least distance in Lab between the ground and each of a figure's three tints."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A person in a pose on a ground, in two colours of `COLORS` that `FIGURE_COLORS` has as a pair.

    Attributes:
        person: a person with all 14 joints of trunk and limbs; eyes and ears are not drawn.

    Raises:
        ValueError: the colours cannot be told apart, or a joint is missing.
    """

    color: str
    ground: str
    person: Person

    def __post_init__(self) -> None:
        if (self.color, self.ground) not in FIGURE_COLORS:
            raise ValueError(f"there is no {self.color} figure on {self.ground} in the little world")
        if None in self.person.body[:14]:
            raise ValueError("a figure needs all joints of trunk and limbs")


def demo_skeleton(width: int, height: int) -> RGBImage:
    """The skeleton that OpenPose would draw of `STANDING`."""
    return draw_skeletons(width, height, [STANDING])


def tints(color: str) -> tuple[Color, Color, Color]:
    """The three tints of a figure: of head, trunk, hands and feet; a darker one of the right arm and leg; a
    lighter one of the left arm and leg."""
    plain = PALETTE[color]
    return plain, mix(plain, PALETTE["black"], _TINTED), mix(plain, PALETTE["white"], _TINTED)


def _visible() -> Iterator[tuple[str, str]]:
    # White, black and brown have no three tints that look like one colour.
    for color, ground in itertools.product(COLORS[:8], COLORS):
        if (np.linalg.norm(lab(tints(color)) - lab(PALETTE[ground]), axis=-1) >= _CONTRAST).all():
            yield color, ground


FIGURE_COLORS = tuple(_visible())
"""The pairs of colours, of figure and ground, that can be told apart in all tints."""


def render_figure(figure: Figure, size: int | tuple[int, int]) -> RGBImage:
    """Draw a figure with smooth edges: right limbs behind left ones, both before the trunk."""
    width, height = (size, size) if isinstance(size, int) else size
    fine = SUPERSAMPLING
    picture = Image.new("RGB", (width * fine, height * fine), PALETTE[figure.ground])
    joints = [place and (place[0] * width * fine, place[1] * height * fine) for place in figure.person.body]
    draw_figure(picture, [joint for joint in joints[:14] if joint], tints(figure.color))
    return from_pil(picture.reduce(fine))


def figure_height(joints: Sequence[Point]) -> float:
    """The height of a figure that stands straight, in the unit of its 14 joints."""
    return math.dist(joints[NECK], _middle(joints[RIGHT_HIP], joints[LEFT_HIP])) / TRUNK


def draw_figure(picture: Image.Image, joints: Sequence[Point], colors: tuple[Color, Color, Color]) -> None:
    """Draw a figure onto a picture, without smoothing its edges.

    Args:
        joints: the 14 joints of trunk and limbs, in pixels.
        colors: the three colours of the figure, in the order of `tints`.
    """
    draw, unit = ImageDraw.Draw(picture), figure_height(joints)
    plain, dark, light = colors
    trunk = [joints[place] for place in (2, 5, 11, 8)]
    draw.polygon(trunk, plain)
    for start, end in zip(trunk, trunk[1:] + trunk[:1], strict=True):
        _draw_capsule(draw, start, end, TRUNK_EDGE * unit, plain)
    _draw_capsule(draw, joints[NECK], joints[NOSE], THROAT * unit, plain)
    draw.circle(joints[NOSE], HEAD * unit, plain)
    for limbs, tint in ((RIGHT_LIMBS, dark), (LEFT_LIMBS, light)):
        for limb in limbs:
            for start, end in itertools.pairwise(limb):
                _draw_capsule(draw, joints[start], joints[end], LIMB * unit, tint)
            draw.circle(joints[limb[-1]], HAND * unit, plain)


def _draw_capsule(draw: ImageDraw.ImageDraw, start: Point, end: Point, radius: float, color: Color) -> None:
    """Draw a line with round ends."""
    length = math.dist(start, end)
    if length > 0:
        across = ((start[1] - end[1]) / length * radius, (end[0] - start[0]) / length * radius)
        corners = [(start, 1), (end, 1), (end, -1), (start, -1)]
        draw.polygon([(x + side * across[0], y + side * across[1]) for (x, y), side in corners], color)
    draw.circle(start, radius, color)
    draw.circle(end, radius, color)


def _middle(first: Point, second: Point) -> Point:
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
