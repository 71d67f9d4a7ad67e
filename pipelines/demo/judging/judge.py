"""Read a picture of the little world with plain image code, which answers None rather than guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.control.skeletons import Point
from pipelines.demo.world.palette import COLORS, PALETTE, lab
from pipelines.demo.world.shapes import OUTLINES, SHAPES, draw_mask
from pipelines.demo.world.world import AREAS, PLACES, ColoredShape, Scene
from pipelines.image_io import RGBImage, to_pil

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 256
"""The pixels on the shorter side to which a larger picture is scaled down before it is read."""

_BLUR = 0.8
"""The deviation, in pixels, of the blur that takes most of a picture's noise and hardly any of a corner."""
_BORDER = 0.03
"""The thickness of the border, in parts of the shorter side."""
_MIN_SHARE_OF_COLOR = 0.8
"""The least part of a border, or of a shape's inside, that has one colour."""
_MAX_NAME_DISTANCE = 24
"""The greatest distance in Lab from the colour that gives its name: half of the least of two colours."""
_MAX_SAME_DISTANCE = 24
"""The greatest distance in Lab from the ground, or from a shape, of pixels that belong to it."""
_EDGE_WIDTH = 2
"""The width, in pixels, of the edge around a shape that the shape covers partly."""
_MIN_AREA = 0.008
"""The area below which a thing counts as dirt, in parts of the shorter side's square."""
_MAX_DIRT = 0.02
"""The area of dirt above which no shape is named, in parts of the picture."""
_MIN_OVERLAP, _MIN_OVERLAP_OF_CIRCLE, _MIN_LEAD = 0.82, 0.91, 0.06
"""The least intersection over union with a shape's outline, the least one with a circle's, and the least
lead before the next shape's.

A shape that melts becomes a disc, so that a circle has to match more exactly.
"""
_MAX_EDGE = 0.14
"""The greatest width of an edge, from a fifth to four fifths of the way between both colours, where the
shape's area is 1."""
_GRID, _REACH = 72, 1.15
"""The samples a side of a normalised shape, and half of its side where the area of the shape is 1."""
_MAX_SIZE_DIFFERENCE = 0.3
"""The greatest difference between the logarithms of an area and of a size's area."""
_MAX_CENTER_OFFSET, _MIN_SIDE_OFFSET = 0.075, 0.11
"""The greatest distance from the middle of a shape at the center, and the least one of a shape at a side,
in parts of width or height."""


@dataclass(frozen=True, slots=True)
class SeenShape:
    """One connected thing before the ground.

    Attributes:
        shape: the shape's name; None when it is like no shape, or like two.
        color: the colour's name; None when it is like no colour, or has several.
        area: the area, in parts of the shorter side's square.
        center: the middle of the box around it, in parts of width and height.
    """

    shape: str | None
    color: str | None
    area: float
    center: Point

    @property
    def size(self) -> str | None:
        """The size of `AREAS` that the shape has; None when it is between two."""
        size = min(AREAS, key=lambda name: abs(math.log(self.area / AREAS[name])))
        return size if abs(math.log(self.area / AREAS[size])) <= _MAX_SIZE_DIFFERENCE else None

    @property
    def place(self) -> str | None:
        """The place of `PLACES` at which the shape is; None when it is between two."""
        offsets = [part - 0.5 for part in self.center]
        if any(_MAX_CENTER_OFFSET < abs(offset) < _MIN_SIDE_OFFSET for offset in offsets):
            return None
        direction = tuple(
            0 if abs(offset) <= _MAX_CENTER_OFFSET else int(math.copysign(1, offset)) for offset in offsets
        )
        return next(place for place, steps in PLACES.items() if steps == direction)


@dataclass(frozen=True, slots=True)
class Reading:
    """The things that are seen in a picture.

    Attributes:
        ground: the name of the border's colour; None when it has none, or several.
        shapes: the shapes from left to right; empty also where the ground is None.
    """

    ground: str | None
    shapes: tuple[SeenShape, ...]

    @property
    def scene(self) -> Scene | None:
        """The one scene that the picture shows; None when any of its words is in doubt."""
        seen = self.shapes
        if not self.ground or len(seen) not in (1, 2):
            return None
        shapes = [ColoredShape(one.shape, one.color) for one in seen if one.shape and one.color]
        size, place = (seen[0].size, seen[0].place) if len(seen) == 1 else ("medium", "center")
        if len(shapes) < len(seen) or not size or not place:
            return None
        try:
            return Scene(self.ground, tuple(shapes), size, place)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The words of a scene that are right in a picture; a word about which the judge is unsure is wrong."""

    ground: bool
    colors: bool
    shapes: bool
    size: bool
    place: bool


def compare(reading: Reading, scene: Scene) -> Verdict:
    """Compare what is seen with the scene that was asked for. A picture with more or fewer shapes has only
    the word for the ground right; a pair has no size or place."""
    seen = reading.shapes
    complete, alone = len(seen) == len(scene.shapes), len(scene.shapes) == 1
    pairs = list(zip(seen, scene.shapes, strict=False))
    return Verdict(
        ground=reading.ground == scene.ground,
        colors=complete and all(one.color == asked.color for one, asked in pairs),
        shapes=complete and all(one.shape == asked.shape for one, asked in pairs),
        size=complete and (not alone or seen[0].size == scene.size),
        place=complete and (not alone or seen[0].place == scene.place),
    )


def read(picture: RGBImage) -> Reading:
    """Read a picture of at least 64 pixels a side, in 20 ms."""
    pixels = smoothed(picture)
    looks = lab(pixels)
    frame = border(looks)
    ground = one_color(looks[frame])
    if ground is None:
        return Reading(None, ())
    apart = np.linalg.norm(looks - ground, axis=-1) > _MAX_SAME_DISTANCE
    labels: Any = ndimage.label(apart, np.ones((3, 3)))[0]  # pyright: ignore[reportGeneralTypeIssues, reportIndexIssue]
    areas = np.bincount(labels.ravel())[1:] / min(frame.shape) ** 2
    dirty = areas[areas < _MIN_AREA].sum() > _MAX_DIRT
    ground_rgb = np.median(pixels[frame], axis=0)
    boxes = ndimage.find_objects(labels)
    shapes = [
        _look(pixels, looks, labels == index + 1, boxes[index], ground_rgb, dirty)
        for index in np.flatnonzero(areas >= _MIN_AREA)
    ]
    return Reading(color_name(ground), tuple(sorted(shapes, key=lambda shape: shape.center)))


def smoothed(picture: RGBImage, side: int = SIDE) -> Floats:
    """The picture, (height, width, 3) of 0 .. 255, with less noise and a shorter side of at most ``side``."""
    scale = min(1.0, side / min(picture.width, picture.height))
    size = (round(picture.width * scale), round(picture.height * scale))
    small = to_pil(picture).resize(size, Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    return np.asarray(ndimage.gaussian_filter(pixels, (_BLUR, _BLUR, 0)), dtype=np.float32)


def border(pixels: Floats) -> Mask:
    """The mask of the edge of a picture, where only ground is seen."""
    height, width = pixels.shape[:2]
    thickness = math.ceil(_BORDER * min(height, width))
    frame = np.ones((height, width), bool)
    frame[thickness:-thickness, thickness:-thickness] = False
    return frame


def color_name(look: Floats) -> str | None:
    """The name of the colour that is like this one in Lab; None if none is."""
    distances = np.linalg.norm(_PALETTE - look, axis=-1)
    nearest = int(distances.argmin())
    return COLORS[nearest] if distances[nearest] <= _MAX_NAME_DISTANCE else None


_PALETTE = lab(list(PALETTE.values()))


def one_color(looks: Floats) -> Floats | None:
    """The median of pixels in Lab; None if they have several colours."""
    middle = np.median(looks, axis=0)
    return (
        middle
        if (np.linalg.norm(looks - middle, axis=-1) <= _MAX_SAME_DISTANCE).mean() >= _MIN_SHARE_OF_COLOR
        else None
    )


def _look(
    pixels: Floats, looks: Floats, mask: Mask, box: tuple[slice, slice], ground: Floats, dirty: bool
) -> SeenShape:
    """The shape, colour and place of one connected thing."""
    height, width = mask.shape
    top, left = (max(0, side.start - _EDGE_WIDTH) for side in box)
    window = slice(top, box[0].stop + _EDGE_WIDTH), slice(left, box[1].stop + _EDGE_WIDTH)
    pixels, looks, mask = pixels[window], looks[window], mask[window]
    depth = np.asarray(ndimage.distance_transform_edt(mask))
    core = depth >= 0.4 * depth.max()
    look = one_color(looks[core])
    coverage = _coverage(pixels, mask, ground, np.median(pixels[core], axis=0))
    area = float(coverage.sum())
    ys, xs = np.indices(coverage.shape, dtype=np.float32)
    x, y = float((xs * coverage).sum()) / area, float((ys * coverage).sum()) / area
    scale = math.sqrt(area)
    shape = None if dirty or look is None else _shape_of(coverage, x, y, scale)
    if shape:
        off_x, off_y = OUTLINES[shape].centroid
        x, y = x - off_x * scale, y - off_y * scale
    return SeenShape(
        shape=shape,
        color=None if look is None else color_name(look),
        area=area / min(height, width) ** 2,
        center=((left + x + 0.5) / width, (top + y + 0.5) / height),
    )


def _coverage(pixels: Floats, mask: Mask, ground: Floats, color: Floats) -> Floats:
    """Each pixel's place between the ground's colour (0) and the shape's (1); 0 away from the mask."""
    way = color - ground
    share = ((pixels - ground) @ way / max(float(way @ way), 1.0)).clip(0, 1)
    return np.where(ndimage.binary_dilation(mask, np.ones((3, 3)), _EDGE_WIDTH), share, np.float32(0))


def _shape_of(coverage: Floats, x: float, y: float, scale: float) -> str | None:
    """The name of the shape whose outline fits best when both have the same area and centroid."""
    steps = np.linspace(-_REACH, _REACH, _GRID) * scale
    rows, columns = np.meshgrid(y + steps, x + steps, indexing="ij")
    sampled = np.asarray(ndimage.map_coordinates(coverage, [rows, columns], order=1), dtype=np.float32)
    seen = sampled > 0.5
    overlaps = [(seen & template).sum() / (seen | template).sum() for template in _templates()]
    second, best = np.argsort(overlaps)[-2:]
    needed = _MIN_OVERLAP_OF_CIRCLE if SHAPES[best] == "circle" else _MIN_OVERLAP
    sure = overlaps[best] >= needed and overlaps[best] - overlaps[second] >= _MIN_LEAD
    return SHAPES[best] if sure and _edge_width(sampled) <= _MAX_EDGE else None


def _edge_width(sampled: Floats) -> float:
    """The mean width of the edge over the outline, in units of the normalised shape."""
    inside = sampled > 0.5
    outline = inside & ~np.asarray(ndimage.binary_erosion(inside, np.ones((3, 3))), dtype=bool)
    between = (sampled > 0.2) & (sampled < 0.8)
    return float(between.sum() / outline.sum()) * 2 * _REACH / _GRID


@cache
def _templates() -> tuple[Mask, ...]:
    """Each shape around its centroid, with an area of 1, in a square of twice `_REACH`."""
    unit, middle = (_GRID - 1) / (2 * _REACH), _GRID / 2
    centers = [
        (middle - x * unit, middle - y * unit) for x, y in (OUTLINES[name].centroid for name in SHAPES)
    ]
    masks = [
        draw_mask(OUTLINES[name], center, unit, _GRID, _GRID)
        for name, center in zip(SHAPES, centers, strict=True)
    ]
    return tuple(np.asarray(mask) > 127 for mask in masks)
