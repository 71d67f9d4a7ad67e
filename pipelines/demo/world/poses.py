"""Plausible poses for the little world's figure."""

from __future__ import annotations

import itertools
import math
import random

from pipelines.control.skeletons import Person, Point
from pipelines.demo.world.figure import FIGURE_COLORS, HAND, HEAD, Figure

HEIGHT = (0.7, 0.84)
"""The least and the greatest height of a straight figure, in parts of the picture's shorter side."""
UPPER_ARM, LOWER_ARM, THIGH, SHIN = 0.17, 0.16, 0.22, 0.21
NECK_TO_NOSE, SHOULDER, HIP = 0.13, 0.095, 0.06
"""Lengths in parts of the figure's height; those of shoulders and hips are measured from the middle."""
SHORTENED = 0.85
"""The least part of its length that a limb shows which points towards or away from the viewer."""

_APART = 0.09
"""The least distance between ends of different limbs, in parts of the figure's height."""
_MARGIN = 0.04


def random_figure(seed: int, size: int | tuple[int, int] = 1) -> Figure:
    """A figure of random colours and pose that fits into the picture.

    Args:
        size: width and height of the picture, or both; only their ratio matters.
    """
    dice = random.Random(seed)
    color, ground = dice.choice(FIGURE_COLORS)
    width, height = (size, size) if isinstance(size, int) else size
    side = min(width, height)
    while True:
        joints = _pose(dice)
        if not _plausible(joints):
            continue
        scale = dice.uniform(*HEIGHT) * side
        joints = [(x * scale, y * scale) for x, y in joints]
        moved = _placed(dice, joints, (width, height), HEAD * scale + _MARGIN * side)
        if moved:
            return Figure(color, ground, Person(body=[(x / width, y / height) for x, y in moved]))


def _pose(dice: random.Random) -> list[Point]:
    """All 18 joints, with the neck at the origin and y downwards, in parts of the figure's height."""
    lean = math.radians(dice.uniform(-14, 14))
    neck, nod = (0.0, 0.0), lean + math.radians(dice.uniform(-15, 15))
    nose = _from(neck, NECK_TO_NOSE, math.pi + nod)
    hips = _from(neck, 0.3, lean)
    joints = [nose, neck]
    for side in (-1, 1):
        shoulder = _from(neck, SHOULDER, lean + side * math.pi / 2)
        raised = dice.triangular(5, 170, 45)
        joints += _limb(dice, shoulder, side, lean, raised, dice.uniform(-115, 115), (UPPER_ARM, LOWER_ARM))
    for side in (-1, 1):
        hip = _from(hips, HIP, lean + side * math.pi / 2)
        spread = dice.triangular(-5, 75, 12)
        joints += _limb(dice, hip, side, 0.0, spread, dice.triangular(-80, 25, -5), (THIGH, SHIN))
    across, up = (math.cos(nod), -math.sin(nod)), (math.sin(-nod), -math.cos(nod))
    for right, above in ((-0.03, 0.025), (0.03, 0.025), (-0.07, 0.01), (0.07, 0.01)):
        joints.append(
            (nose[0] + right * across[0] + above * up[0], nose[1] + right * across[1] + above * up[1])
        )
    return joints


def _limb(
    dice: random.Random,
    start: Point,
    side: int,
    lean: float,
    outward: float,
    bend: float,
    lengths: tuple[float, float],
) -> list[Point]:
    """The three joints of a limb. Angles are in degrees from straight down, positive away from the body."""
    first = lean + side * math.radians(outward)
    second = first + side * math.radians(bend)
    middle = _from(start, lengths[0] * dice.uniform(SHORTENED, 1), first)
    return [start, middle, _from(middle, lengths[1] * dice.uniform(SHORTENED, 1), second)]


def _from(start: Point, length: float, angle: float) -> Point:
    """The end of a line from ``start``: straight down at angle 0, to the viewer's right at a quarter turn."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def _plausible(joints: list[Point]) -> bool:
    """Whether ends of limbs lie apart and off the face, hands beside the trunk, and legs do not cross."""
    nose, wrists, ankles = joints[0], (joints[4], joints[7]), (joints[10], joints[13])
    loose = [*wrists, *ankles, joints[9], joints[12], joints[3], joints[6]]
    chains = {frozenset(pair) for pair in ((joints[4], joints[3]), (joints[7], joints[6]))}
    chains |= {frozenset(pair) for pair in ((joints[10], joints[9]), (joints[13], joints[12]))}
    pairs = itertools.combinations(loose, 2)
    hips = ((joints[8][0] + joints[11][0]) / 2, (joints[8][1] + joints[11][1]) / 2)
    spine = [(hips[0] * part / 8, hips[1] * part / 8) for part in range(10)]
    return (
        all(math.dist(wrist, bone) > SHOULDER + HAND for wrist in wrists for bone in spine)
        and all(math.dist(*pair) > _APART for pair in pairs if frozenset(pair) not in chains)
        and all(math.dist(nose, joint) > HEAD + HAND + 0.02 for joint in loose)
        and joints[13][0] - joints[10][0] > _APART
        and joints[12][0] - joints[9][0] > 0.03
        and max(ankles, key=lambda ankle: ankle[1])[1] > 0.6
    )


def _placed(
    dice: random.Random, joints: list[Point], size: tuple[float, float], margin: float
) -> list[Point] | None:
    """The joints moved to a place near the middle of the picture; None if they do not fit."""
    shift: list[float] = []
    for axis, length in enumerate(size):
        low, high = min(joint[axis] for joint in joints), max(joint[axis] for joint in joints)
        room = length - 2 * margin - (high - low)
        if room < 0:
            return None
        middle = margin + room / 2 - low
        shift.append(middle + dice.uniform(-0.5, 0.5) * min(room, 0.15 * length))
    return [(x + shift[0], y + shift[1]) for x, y in joints]
