"""Read the pose of the little world's figure in a picture, without a network and without knowing it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.control.skeletons import Color, Person, Point
from pipelines.demo.judging.judge import border, color_name, one_color, smoothed
from pipelines.demo.world.figure import (
    FIGURE_COLORS,
    HAND,
    HEAD,
    LIMB,
    TRUNK,
    draw_figure,
    figure_height,
    tints,
)
from pipelines.demo.world.palette import PALETTE, lab
from pipelines.demo.world.poses import (
    HIP,
    LOWER_ARM,
    NECK_TO_NOSE,
    SHIN,
    SHORTENED,
    SHOULDER,
    THIGH,
    UPPER_ARM,
)
from pipelines.image_io import RGBImage

Floats = NDArray[np.float32]

SIDE = 96
"""The pixels on the shorter side to which a picture is scaled down before it is read."""

_MAX_TINT_DISTANCE = 20
"""The greatest distance in Lab from a tint, in the median over a figure without its outline."""
MIN_GROUND_DISTANCE = 22
"""The least distance in Lab between the ground and pixels that are not ground."""
_MIN_AREA, _MAX_AREA = 0.03, 0.4
"""The least and the greatest area of a figure, in parts of the shorter side's square."""
_MIN_TINT_SHARE = 0.08
"""The least part of a figure that each tint has."""
_FIGURE_AREA = 0.25
"""The area of a figure, in parts of its height's square."""
_SCALES = (0.93, 1.0, 1.07)
_DIRECTIONS = 40
_LEANS = tuple(math.radians(degrees) for degrees in range(-20, 21, 5))
_SPINE = tuple((side, below * TRUNK) for side in (-0.04, 0.04) for below in (0.1, 0.3, 0.5, 0.7, 0.9))
"""The places, to the right of the neck and below it, at which a trunk is looked for."""
_LENGTHS = ((1 + SHORTENED) / 2 - 0.05, (1 + SHORTENED) / 2 + 0.05)
"""The lengths with which a limb is looked for, in parts of its full length."""
_EVIDENCE = np.array([[-1, 1, -0.2, -0.2], [-1, -0.7, 1, -0.2], [-1, -0.7, -0.2, 1]], np.float32)
"""The evidence of a pixel of ground, plain, dark and light colour (columns) for a plain, a dark and a light
part (rows); where limbs cross, one hides the other."""
_REFINING_STEPS = (1.5, 0.7, 0.3)
"""The distances, in pixels, by which joints are moved in search of a better match."""
_MIN_EXPLAINED = 0.66
"""The least part of the difference from bare ground that a figure has to explain to count as read."""


@dataclass(frozen=True, slots=True)
class SeenFigure:
    """A figure as it was read.

    Attributes:
        joints: the 14 joints of trunk and limbs, in parts of width and height.
        explained: 1 where the drawn joints give exactly the picture, 0 where they are no better than bare
            ground.
    """

    color: str
    ground: str
    joints: tuple[Point, ...]
    explained: float


def joint_error(seen: SeenFigure, person: Person, size: tuple[int, int] = (1, 1)) -> float:
    """The mean distance of the 14 joints from a person's joints, in parts of the person's height.

    Args:
        size: width and height of the picture; only their ratio matters.
    """
    asked = [(x * size[0], y * size[1]) for x, y in (place for place in person.body[:14] if place)]
    found = [(x * size[0], y * size[1]) for x, y in seen.joints]
    distances = [math.dist(*pair) for pair in zip(found, asked, strict=True)]
    return sum(distances) / len(distances) / figure_height(asked)


def read_figure(picture: RGBImage) -> SeenFigure | None:
    """Read the one figure in a picture, in half a second; None when there is none or its pose is not clear.

    The joints are found as pictorial structures (Felzenszwalb and Huttenlocher 2005): for every place of
    every joint the best limb that hangs from it, from hands and feet inwards, which gives the best of all
    poses. Then single joints are moved as long as the figure drawn from them comes closer to the picture.
    """
    pixels = smoothed(picture, SIDE)
    looks = lab(pixels)
    ground_look = one_color(looks[border(looks)])
    ground = None if ground_look is None else color_name(ground_look)
    if ground_look is None or not ground:
        return None
    body = np.linalg.norm(looks - ground_look, axis=-1) > MIN_GROUND_DISTANCE
    inner = np.asarray(ndimage.binary_erosion(body), dtype=bool)
    if not (_MIN_AREA <= body.sum() / SIDE**2 <= _MAX_AREA and inner.any()):
        return None
    color = _figure_color(looks[inner], ground)
    if not color:
        return None
    colors = (PALETTE[ground], *tints(color))
    nearest = np.linalg.norm(looks[..., None, :] - lab(colors), axis=-1).argmin(axis=-1)
    if min((nearest[inner] == tint).mean() for tint in (1, 2, 3)) < _MIN_TINT_SHARE:
        return None
    height = math.sqrt(body.sum() / _FIGURE_AREA)
    _, joints = max(_best_pose(_EVIDENCE[:, nearest], height * scale) for scale in _SCALES)
    likeness = _Likeness(pixels, nearest, colors)
    joints = _refined(likeness, joints)
    explained = likeness.explained(joints)
    if explained < _MIN_EXPLAINED:
        return None
    width, tall = looks.shape[1], looks.shape[0]
    places = tuple(((x + 0.5) / width, (y + 0.5) / tall) for x, y in joints)
    return SeenFigure(color, ground, places, explained)


def _figure_color(looks: Floats, ground: str) -> str | None:
    """The colour whose three tints are nearest to these pixels; None if they are not near."""
    colors = [color for color, seen_on in FIGURE_COLORS if seen_on == ground]
    # The median: where two colours meet there are pixels of neither.
    distances = [
        np.median(np.linalg.norm(looks[:, None] - lab(tints(color)), axis=-1).min(axis=1)) for color in colors
    ]
    nearest = int(np.argmin(distances))
    return colors[nearest] if distances[nearest] <= _MAX_TINT_DISTANCE else None


def _best_pose(evidence: Floats, height: float) -> tuple[float, list[Point]]:
    """The evidence for the best pose of a figure of that height in pixels, and the 14 joints of that pose."""
    plain, dark, light = evidence
    limb_size, hand_size = (max(1, round(2 * radius * height * 0.8)) for radius in (LIMB, HAND))
    # A hand is plain all over with something else around it, which keeps hands off the trunk.
    inner, outer = (_blurred(np.maximum(plain, 0), hand_size * times) for times in (1, 2))
    hands = inner - np.maximum(2 * outer - inner / 2, 0)
    limbs = [
        _Limb(_blurred(tint, limb_size), hands, [length * height for length in lengths])
        for tint, lengths in itertools.product((dark, light), ((UPPER_ARM, LOWER_ARM), (THIGH, SHIN)))
    ]
    right_arm, right_leg, left_arm, left_leg = limbs
    trunk = _blurred(np.maximum(plain, 0.3 * np.maximum(dark, light)), limb_size)
    heads = _blurred(plain, max(1, round(1.5 * HEAD * height)))
    best, found = -math.inf, []
    for lean in _LEANS:
        hangs = [
            (right_arm, _turned(-SHOULDER, 0, lean, height)),
            (left_arm, _turned(SHOULDER, 0, lean, height)),
            (right_leg, _turned(-HIP, TRUNK, lean, height)),
            (left_leg, _turned(HIP, TRUNK, lean, height)),
        ]
        spine = [_turned(*place, lean, height) for place in _SPINE]
        score = sum(_moved(limb.best, place) for limb, place in hangs)
        score = score + height * TRUNK * sum(_moved(trunk, place) for place in spine) / len(spine)
        nose = _turned(0, -NECK_TO_NOSE, lean, height)
        score = score + height * 2 * HEAD * _moved(heads, nose)
        if score.max() > best:
            best = float(score.max())
            row, column = np.unravel_index(score.argmax(), score.shape)
            neck = (float(column), float(row))
            limb_joints = [limb.joints(_sum(neck, place)) for limb, place in hangs]
            found = [_sum(neck, nose), neck, *itertools.chain(*limb_joints)]
    return best, found


class _Limb:
    """The best direction of an arm or a leg from every pixel."""

    def __init__(self, tint: Floats, ends: Floats, lengths: Sequence[float]) -> None:
        upper, lower = lengths
        self._lower, self._lower_way = _best_way(tint, lower, ends * lower)
        self.best, self._upper_way = _best_way(tint, upper, self._lower)

    def joints(self, start: Point) -> list[Point]:
        """The joints from shoulder or hip to hand or foot."""
        middle = _sum(start, _at(self._upper_way, start))
        return [start, middle, _sum(middle, _at(self._lower_way, middle))]


def _best_way(tint: Floats, length: float, ends: Floats) -> tuple[Floats, Floats]:
    """The most evidence that a straight piece from each pixel finds, with that of its end, and its vector."""
    best = np.full(tint.shape, -np.inf, np.float32)
    way = np.zeros((*tint.shape, 2), np.float32)
    for share, turn in itertools.product(_LENGTHS, range(_DIRECTIONS)):
        angle, long = 2 * math.pi * turn / _DIRECTIONS, share * length
        end = (long * math.cos(angle), long * math.sin(angle))
        samples = [_moved(tint, (end[0] * part, end[1] * part)) for part in (0.2, 0.4, 0.6, 0.8, 1.0)]
        gain = sum(samples) * (long / len(samples)) + _moved(ends, end)
        better = gain > best
        best = np.where(better, gain, best)
        way[better] = end
    return best, way


def _turned(right: float, below: float, lean: float, unit: float) -> Point:
    """The vector from the neck to a place beside and below it, of somebody who leans by an angle."""
    return (
        unit * (right * math.cos(lean) + below * math.sin(lean)),
        unit * (below * math.cos(lean) - right * math.sin(lean)),
    )


def _blurred(values: Floats, side: int) -> Floats:
    """The mean over the square around each pixel."""
    return np.asarray(ndimage.uniform_filter(values, side), dtype=np.float32)


def _moved(values: Floats, by: Iterable[float]) -> Floats:
    """The value at a distance (x and y) from each pixel; beyond the edge it is the least value of all."""
    across, down = (round(distance) for distance in by)
    height, width = values.shape
    moved = np.full_like(values, values.min())
    rows, columns = _overlap(down, height), _overlap(across, width)
    moved[rows[0], columns[0]] = values[rows[1], columns[1]]
    return moved


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """The slices to which and from which values move when they are shifted."""
    kept = max(0, length - abs(shift))
    return (
        (slice(0, kept), slice(shift, shift + kept))
        if shift >= 0
        else (slice(-shift, -shift + kept), slice(0, kept))
    )


def _at(way: Floats, place: Point) -> Point:
    row = min(max(round(place[1]), 0), way.shape[0] - 1)
    column = min(max(round(place[0]), 0), way.shape[1] - 1)
    return float(way[row, column, 0]), float(way[row, column, 1])


def _sum(first: Point, second: Point) -> Point:
    return first[0] + second[0], first[1] + second[1]


class _Likeness:
    """A measure of how like a picture a figure is, drawn in the picture's own colours."""

    def __init__(self, pixels: Floats, nearest: NDArray[np.intp], colors: Sequence[Color]) -> None:
        """Measure the colours of a picture.

        Args:
            nearest: for each pixel the index of the colour that is most like it.
            colors: the colours of the ground and of the three tints.
        """
        self._pixels = pixels
        measured = [
            np.median(pixels[nearest == index], axis=0) if (nearest == index).any() else color
            for index, color in enumerate(colors)
        ]
        ground, plain, dark, light = (
            (round(float(red)), round(float(green)), round(float(blue))) for red, green, blue in measured
        )
        self._ground, self._tints = ground, (plain, dark, light)
        # Noise is nothing that a figure could explain.
        self._noise = float(np.abs(pixels - self._ground)[border(pixels)].mean())

    def explained(self, joints: Sequence[Point]) -> float:
        """1 where the drawn figure equals the picture, 0 where bare ground is as good."""
        bare = float(np.abs(self._pixels - self._ground).mean())
        return 1 - (self.difference(joints) - self._noise) / max(bare - self._noise, 1e-6)

    def difference(self, joints: Sequence[Point]) -> float:
        """The mean difference of drawn figure and picture over pixels and channels, 0 .. 255."""
        height, width = self._pixels.shape[:2]
        drawn = Image.new("RGB", (2 * width, 2 * height), self._ground)
        draw_figure(drawn, [(2 * x + 1, 2 * y + 1) for x, y in joints], self._tints)
        return float(np.abs(np.asarray(drawn.reduce(2), dtype=np.float32) - self._pixels).mean())


def _refined(likeness: _Likeness, joints: list[Point]) -> list[Point]:
    """The joints, moved one by one to where the drawn figure is most like the picture."""
    best = likeness.difference(joints)
    for step in _REFINING_STEPS:
        for joint in range(len(joints)):
            for direction in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                moved = _sum(joints[joint], (direction[0] * step, direction[1] * step))
                tried = [*joints[:joint], moved, *joints[joint + 1 :]]
                difference = likeness.difference(tried)
                if difference < best:
                    joints, best = tried, difference
    return joints
