"""Captions of pictures of the little world, in English and Chinese, and the scenes that they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pipelines.demo.world.figure import Figure
from pipelines.demo.world.palette import COLORS
from pipelines.demo.world.shapes import SHAPES
from pipelines.demo.world.world import PLACES, ColoredShape, Scene

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

CHINESE = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "cyan": "青色", "blue": "蓝色",
    "purple": "紫色", "pink": "粉色", "brown": "棕色", "white": "白色", "black": "黑色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星星", "heart": "心形",
    "cross": "十字", "ring": "圆环", "crescent": "月牙", "shape": "图形", "figure": "小人",
    "small": "小", "medium": "", "large": "大",
    "center": "上", "left": "左侧", "right": "右侧", "top": "顶部", "bottom": "底部", "top left": "左上角",
    "top right": "右上角", "bottom left": "左下角", "bottom right": "右下角",
}  # fmt: skip
"""Every word of the little world in Chinese; the words for places follow the word for the ground."""


def caption(picture: Scene | Figure, language: Language = "en") -> str:
    """The caption that `parse` reads, as "a small green star at the top left of a white background"."""
    return wordings(picture, language)[0]


def wordings(picture: Scene | Figure, language: Language = "en") -> tuple[str, ...]:
    """Five captions that name everything in a picture, the canonical one first."""
    return _say(language, picture.ground, *_parts(picture))


def open_wordings(picture: Scene | Figure, language: Language = "en") -> tuple[str, ...]:
    """Captions that leave open the ground, the colours, both, the shapes' names, or all but the ground."""
    size, place, nouns = _parts(picture)
    colorless = [("", noun) for _, noun in nouns]
    said = [("", size, place, nouns), (picture.ground, size, place, colorless), ("", size, place, colorless)]
    if isinstance(picture, Scene):
        nameless = [(color, "shape") for color, _ in nouns]
        said.append((picture.ground, size, place, nameless))
    said.append((picture.ground, "medium", "center", []))
    return tuple(_say(language, *parts)[0] for parts in said)


def parse(text: str) -> Scene:
    """Parse a canonical caption in either language.

    Raises:
        ValueError: the text is no canonical caption.
    """
    for pattern, plain in _PATTERNS:
        if found := pattern.fullmatch(text):
            said = {part: plain[words] for part, words in found.groupdict().items() if words}
            pairs = [(said[f"shape{n}"], said[f"color{n}"]) for n in (1, 2) if f"shape{n}" in said]
            shapes = tuple(ColoredShape(*pair) for pair in pairs)
            return Scene(said["ground"], shapes, said.get("size", "medium"), said.get("place", "center"))
    raise ValueError(f"{text!r} is no canonical caption of the little world")


_Noun = tuple[str, str]
"""A colour, or an empty string, and the name of the thing that has it."""


def _parts(picture: Scene | Figure) -> tuple[str, str, list[_Noun]]:
    if isinstance(picture, Figure):
        return "medium", "center", [(picture.color, "figure")]
    return picture.size, picture.place, [(shape.color, shape.shape) for shape in picture.shapes]


def _say(language: Language, ground: str, size: str, place: str, nouns: list[_Noun]) -> tuple[str, ...]:
    """Every wording; there is only one when the ground is empty or there are no nouns."""
    return (_say_english if language == "en" else _say_chinese)(ground, size, place, nouns)


def _say_english(ground: str, size: str, place: str, nouns: list[_Noun]) -> tuple[str, ...]:
    size, place = size.replace("medium", ""), place.replace("center", "")
    phrases = [_joined(" ", (size, color, noun)) for color, noun in nouns]
    things = " and ".join(_with_article(phrase) for phrase in phrases)
    spot = place and f"at the {place}"
    if not ground:
        return (_joined(" ", (things, spot)),)
    back = f"{_with_article(ground)} background"
    if not nouns:
        return (back,)
    where = f"{spot} of {back}" if spot else f"on {back}"
    return (
        f"{things} {where}",
        f"a picture of {things} {where}",
        f"{where}, {things}",
        _joined(" ", (back, "with", things, spot)),
        _joined(", ", (*phrases, place, f"{ground} background")),
    )


def _say_chinese(ground: str, size: str, place: str, nouns: list[_Noun]) -> tuple[str, ...]:
    phrases = [_joined("", (CHINESE.get(color, ""), CHINESE[size], CHINESE[noun])) for color, noun in nouns]
    things = "和".join(phrases)
    spot = CHINESE[place]
    named_spot = "" if place == "center" else spot
    if not ground:
        return (_joined("的", (named_spot, things)),)
    back = f"{CHINESE[ground]}背景"
    if not nouns:
        return (back,)
    return (
        f"{back}{spot}的{things}",
        f"一张图片：{back}{spot}的{things}",
        f"{back}{spot}有{things}",
        f"{things}在{back}{spot}",
        _joined("，", (*phrases, named_spot, back)),
    )


def _joined(between: str, words: Iterable[str]) -> str:
    return between.join(filter(None, words))


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _one_of(part: str, words: Iterable[str]) -> str:
    return f"(?P<{part}>{'|'.join(filter(None, words))})"


def _chinese(words: Iterable[str]) -> list[str]:
    return [CHINESE[word] for word in words]


_NAMED_PLACES = [place for place in PLACES if place != "center"]
_PATTERNS = (
    (
        re.compile(
            f"an? (?:{_one_of('size', ('small', 'large'))} )?"
            f"{_one_of('color1', COLORS)} {_one_of('shape1', SHAPES)}"
            f"(?: and an? {_one_of('color2', COLORS)} {_one_of('shape2', SHAPES)})?"
            f" (?:on|at the {_one_of('place', _NAMED_PLACES)} of) an? {_one_of('ground', COLORS)} background"
        ),
        {word: word for word in CHINESE},
    ),
    (
        re.compile(
            f"{_one_of('ground', _chinese(COLORS))}背景{_one_of('place', _chinese(PLACES))}的"
            f"{_one_of('color1', _chinese(COLORS))}{_one_of('size', ('小', '大'))}?"
            f"{_one_of('shape1', _chinese(SHAPES))}"
            f"(?:和{_one_of('color2', _chinese(COLORS))}{_one_of('shape2', _chinese(SHAPES))})?"
        ),
        {chinese: word for word, chinese in CHINESE.items()},
    ),
)
"""The pattern of the canonical caption in each language, and the English of the words in it."""
