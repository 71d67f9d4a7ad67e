"""Prompts for training, which name all of a picture, a part of it, or nothing, with and without filler."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase

from pipelines.demo.checkpoints.words import QUALITIES
from pipelines.demo.world.captions import Language, open_wordings, wordings
from pipelines.demo.world.figure import Figure
from pipelines.demo.world.world import Scene

NOTHING, OPEN, FILLED = 0.1, 0.15, 0.25
"""The shares of prompts that name nothing, that leave something open, and that have filler around them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, and the things that it names.

    Attributes:
        complete: whether it names everything that can be seen.
        parts: the parts that it names, of "ground", "color1", "shape1", "color2", "shape2", "size" and
            "place".
    """

    text: str
    complete: bool
    parts: Mapping[str, str]


def plain_prompt(scene: Scene, dice: random.Random, language: Language = "en") -> Prompt:
    """A prompt that names everything without filler, or nothing."""
    if dice.random() < NOTHING:
        return Prompt("", complete=False, parts={})
    return Prompt(dice.choice(wordings(scene, language)), complete=False, parts=_parts(scene))


def nothing(dice: random.Random) -> str:
    """A prompt with no word about any picture."""
    return _filler(dice) if dice.random() < FILLED else ""


def prompt(picture: Scene | Figure, dice: random.Random, language: Language = "en") -> Prompt:
    """One of many prompts for a picture; "" is the one that classifier-free guidance needs."""
    filler = nothing(dice)
    draw = dice.random()
    if draw < NOTHING:
        return Prompt(filler, complete=False, parts={})
    complete = draw >= NOTHING + OPEN
    said, parts = dice.choice(wordings(picture, language)), _parts(picture)
    if not complete:
        ways = open_wordings(picture, language)
        left_open = dice.randrange(len(ways))
        said = ways[left_open]
        parts = {name: word for name, word in parts.items() if name not in _LEFT_OPEN[left_open]}
    return Prompt(", ".join(filter(None, (said, filler))), complete, parts)


_COLORS, _SHAPES = {"color1", "color2"}, {"shape1", "shape2"}
_LEFT_OPEN = ({"ground"}, _COLORS, {"ground"} | _COLORS, _SHAPES, _COLORS | _SHAPES | {"size", "place"})
"""The parts that each caption of `open_wordings` leaves open."""


def _parts(picture: Scene | Figure) -> dict[str, str]:
    if isinstance(picture, Figure):
        return {"ground": picture.ground, "color1": picture.color, "shape1": "figure"}
    parts = {"ground": picture.ground, "size": picture.size, "place": picture.place}
    for number, shape in enumerate(picture.shapes, 1):
        parts |= {f"color{number}": shape.color, f"shape{number}": shape.shape}
    return parts


def _filler(dice: random.Random) -> str:
    """Phrases about quality, and words that mean nothing."""
    phrases = [" ".join(dice.choices(QUALITIES, k=dice.randint(1, 3))) for _ in range(dice.randint(1, 12))]
    if dice.random() < 0.3:
        phrases.append("".join(dice.choices(ascii_lowercase, k=dice.randint(2, 8))))
    return ", ".join(phrases)
