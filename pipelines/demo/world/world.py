"""The little world that the demo checkpoints know: coloured shapes on a coloured ground, drawn exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageChops, ImageFilter

from pipelines.control.skeletons import Point
from pipelines.demo.world.palette import COLORS, PALETTE, Color, lab, mix
from pipelines.demo.world.shapes import OUTLINES, SHAPES, draw_mask
from pipelines.image_io import RGBImage, from_pil

AREAS = {"small": 0.05, "medium": 0.12, "large": 0.24}
"""The area of a shape of each size, in parts of the square of the picture's shorter side."""
PAIR_AREA = 0.065
"""The area of each of two shapes side by side, in parts of the square of the picture's shorter side."""
PAIR_OFFSET = 0.23
"""The distance of each of two shapes from the picture's middle, in parts of the width."""
OFFSETS = {"small": 0.27, "medium": 0.19}
"""The distance between a place and the picture's middle, in parts of width and height. A large shape stands
only at the center."""

PLACES: dict[str, tuple[int, int]] = {
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
"""The direction of each place from the middle, x to the right and y downwards."""

Style = Literal["striped", "outlined"]
STYLES: tuple[Style, ...] = ("striped", "outlined")
"""The ways to paint shapes that no caption names; LoRAs teach them."""
STRIPE, LINE = 0.08, 0.022
"""The height of a stripe, which is that of the gap below it, too, and the width of an outline; both in
parts of the shorter side."""

_MARGIN = 0.04
"""The width that stays free around a shape, in parts of the shorter side."""
_MOVED = 0.015
_GROWN = 0.06
"""The most by which a seed moves a shape, in parts of the picture's size, and by which it changes the
shape's area, in parts of that area."""


@dataclass(frozen=True, slots=True)
class ColoredShape:
    """A shape of `SHAPES` in a colour of `COLORS`."""

    shape: str
    color: str

    def __post_init__(self) -> None:
        if self.shape not in SHAPES or self.color not in COLORS:
            raise ValueError(f"there is no {self.color} {self.shape} in the little world")


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a picture.

    Attributes:
        ground: a colour of `COLORS` that no shape in the picture has.
        shapes: one shape; or two different ones from left to right, which are always medium and at the
            center.
        size: a size of `AREAS`.
        place: a place of `PLACES`; large shapes stand at the center.

    Raises:
        ValueError: there is no such scene.
    """

    ground: str
    shapes: tuple[ColoredShape, ...]
    size: str = "medium"
    place: str = "center"

    def __post_init__(self) -> None:
        if self.ground not in COLORS or any(shape.color == self.ground for shape in self.shapes):
            raise ValueError(f"{self.ground} is no ground for {self.shapes}")
        if self.size not in AREAS or self.place not in PLACES:
            raise ValueError(f"{self.size} at the {self.place} is no size and place")
        if len(self.shapes) not in (1, 2) or len(set(self.shapes)) < len(self.shapes):
            raise ValueError("a scene has one shape, or two different ones")
        if len(self.shapes) == 2 and (self.size, self.place) != ("medium", "center"):
            raise ValueError("two shapes have no other size and place")
        if self.place != "center" and self.size not in OFFSETS:
            raise ValueError("a large shape stands at the center")

    @property
    def held_out(self) -> bool:
        """Whether training never shows the scene."""
        return any(is_held_out(shape.shape, shape.color, self.ground) for shape in self.shapes)

    @property
    def is_plain(self) -> bool:
        """Whether the scene is a single medium shape at the center."""
        return len(self.shapes) == 1 and (self.size, self.place) == ("medium", "center")


def simple_scene(shape: str, color: str, ground: str) -> Scene:
    """A scene of one medium shape at the center."""
    return Scene(ground, (ColoredShape(shape, color),))


def is_held_out(shape: str, color: str, ground: str) -> bool:
    """Whether training never shows this shape in this colour on this ground: a tenth of them are held out.

    They form a Latin square: each shape in each colour misses one ground of ten, each shape on each ground
    one colour, and each colour on each ground at most one shape of eight.
    """
    step = COLORS.index(ground) - COLORS.index(color)
    return step % len(COLORS) == 1 + SHAPES.index(shape)


def combinations(*, held_out: bool) -> Iterator[Scene]:
    """Every scene of one medium shape at the center that training never shows, or that it may show."""
    for shape in SHAPES:
        for color in COLORS:
            for ground in COLORS:
                if ground != color and is_held_out(shape, color, ground) == held_out:
                    yield simple_scene(shape, color, ground)


def random_scene(seed: int) -> Scene:
    """A scene that training may show: a quarter are pairs, a third of the rest is medium at the center."""
    dice = random.Random(seed)
    while True:
        ground, *colors = dice.sample(COLORS, 3)
        shapes = [ColoredShape(dice.choice(SHAPES), color) for color in colors]
        if dice.random() < 0.25:
            scene = Scene(ground, tuple(shapes))
        elif dice.random() < 1 / 3:
            scene = Scene(ground, (shapes[0],))
        else:
            size = dice.choice(tuple(AREAS))
            place = dice.choice(tuple(PLACES)) if size in OFFSETS else "center"
            scene = Scene(ground, (shapes[0],), size, place)
        if not scene.held_out:
            return scene


def render(
    scene: Scene, size: int | tuple[int, int], seed: int | None = None, styles: Collection[Style] = ()
) -> RGBImage:
    """Draw a scene with smooth edges; 64 to 2048 pixels a side.

    Args:
        size: width and height, or one number for both.
        seed: moves and scales the shapes a little, always in the same way; None draws them exactly.
        styles: ways to paint the shapes. Stripes lie across and are half as bright as the shape, or half as
            dark if that is black; an outline lies inside the shape and is black where that differs from
            both colours.
    """
    width, height = (size, size) if isinstance(size, int) else size
    dice = random.Random(seed) if seed is not None else None
    picture = Image.new("RGB", (width, height), PALETTE[scene.ground])
    for shape, (center, area) in zip(scene.shapes, _layout(scene), strict=True):
        if dice:
            center = (center[0] + dice.uniform(-_MOVED, _MOVED), center[1] + dice.uniform(-_MOVED, _MOVED))
            area *= dice.uniform(1 - _GROWN, 1 + _GROWN)
        _paint(picture, shape, center, area, scene.ground, styles)
    return from_pil(picture)


def _layout(scene: Scene) -> list[tuple[Point, float]]:
    """The middle (in parts of width and height) and area (of the shorter side's square) of each shape."""
    if len(scene.shapes) == 2:
        return [((0.5 + side * PAIR_OFFSET, 0.5), PAIR_AREA) for side in (-1, 1)]
    across, down = PLACES[scene.place]
    offset = OFFSETS.get(scene.size, 0.0)
    return [((0.5 + across * offset, 0.5 + down * offset), AREAS[scene.size])]


def _paint(
    picture: Image.Image,
    shape: ColoredShape,
    center: Point,
    area: float,
    ground: str,
    styles: Collection[Style],
) -> None:
    """Paint one shape; only the box around it is drawn finer, so that this is fast."""
    outline, side = OUTLINES[shape.shape], min(picture.size)
    scale = math.sqrt(area) * side
    halves = (outline.half_width * scale, outline.half_height * scale)
    middle = [
        min(max(part * length, half + _MARGIN * side), length - half - _MARGIN * side)
        for part, length, half in zip(center, picture.size, halves, strict=True)
    ]
    left, top = (math.floor(place - half) - 1 for place, half in zip(middle, halves, strict=True))
    box_width, box_height = (math.ceil(2 * half) + 3 for half in halves)
    mask = draw_mask(outline, (middle[0] - left, middle[1] - top), scale, box_width, box_height)
    picture.paste(PALETTE[shape.color], (left, top), mask)
    if "striped" in styles:
        stripes = ImageChops.multiply(mask, _stripes(mask.size, middle[1] - top, STRIPE * side))
        picture.paste(stripe_color(shape.color), (left, top), stripes)
    if "outlined" in styles:
        line = ImageChops.subtract(mask, _shrunk(mask, LINE * side))
        picture.paste(line_color(shape.color, ground), (left, top), line)


def stripe_color(color: str) -> Color:
    """The colour of the stripes on a shape of this colour."""
    return mix(PALETTE[color], PALETTE["white" if color == "black" else "black"], 0.5)


def line_color(color: str, ground: str) -> Color:
    """The colour of the line around a shape of this colour on this ground, which differs from both."""
    return next(
        PALETTE[line]
        for line in ("black", "white", "red")
        if all(math.dist(lab(PALETTE[line]), lab(PALETTE[other])) > 40 for other in (color, ground))
    )


def _stripes(size: tuple[int, int], middle: float, height: float) -> Image.Image:
    """A mask of smooth stripes across, with the box's middle between two of them."""
    width, rows = size
    distances = (abs((row + 0.5 - middle) % (2 * height) - height) for row in range(rows))
    column = Image.new("L", (1, rows))
    column.putdata([round(255 * min(max(height / 2 - distance + 0.5, 0), 1)) for distance in distances])
    return column.resize((width, rows))


def _shrunk(mask: Image.Image, by: float) -> Image.Image:
    """A mask without its border, with smooth edges; the corners of what is left are rounded."""
    framed = Image.new("L", (mask.width + 2 * math.ceil(by), mask.height + 2 * math.ceil(by)))
    framed.paste(mask, (math.ceil(by), math.ceil(by)))
    # One deviation inside a straight edge its blurred mask is 214 and climbs by 62 a deviation.
    steepness = 255 / 62 * max(by, 0.5)
    ramp = [round(min(max((value - 214) * steepness + 127, 0), 255)) for value in range(256)]
    inner = framed.filter(ImageFilter.GaussianBlur(by)).point(ramp)
    return inner.crop((math.ceil(by), math.ceil(by), math.ceil(by) + mask.width, math.ceil(by) + mask.height))
