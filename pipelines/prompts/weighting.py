"""A prompt -> phrases weighted by its brackets -> chunks that CLIP reads at once."""

# Why: pipelines/decisions/0005.

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

BRACKET_FACTOR = 1.1
"""The factor by which a pair of round brackets multiplies a weight; a pair of square ones divides by it."""

MAX_WEIGHT = 10.0
"""The largest magnitude of a weight; larger ones are cut to it, because they draw only noise."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_SYMBOL = re.compile(
    rf"\\(?P<escaped>[\\()\[\]])|(?P<open>[(\[])|:\s*(?P<weight>{_NUMBER})\s*\)|(?P<close>[)\]])"
    r"|[^\\()\[\]:]+|[\\:]",
    re.ASCII,
)
_OPENING = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that share a weight (1.0 = as they are)."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """Token ids that stay in one chunk, all of one weight."""

    tokens: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens that a text encoder reads at once, with start and end, and the weight of each."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


def weighted_phrases(prompt: str) -> list[Phrase]:
    r"""Read the attention syntax of AUTOMATIC1111's web UI.

    ``(x)`` weighs x by 1.1, ``[x]`` by 1 / 1.1, ``(x:1.3)`` by 1.3; inside each other they multiply.
    ``\(``, ``\)``, ``\[``, ``\]`` and ``\\`` are the characters themselves. A bracket that nothing closes
    reaches to the end, one that nothing opened is a character; so is a colon without a number and a closing
    round bracket after it. No text is an error.

    Returns:
        Phrases in order, neighbours of equal weight joined; at least one, perhaps empty.
    """
    around: dict[_Brackets, float] = {}
    phrases: list[Phrase] = []
    for item in _items(prompt):
        if isinstance(item, str):
            weight = math.prod(around.values(), start=1.0)
            phrases.append(Phrase(item, max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))))
        elif item in around:
            del around[item]
        else:
            around[item] = item.factor
    return [
        Phrase("".join(phrase.text for phrase in equal), weight)
        for weight, equal in groupby(phrases, key=attrgetter("weight"))
    ] or [Phrase("")]


@dataclass(slots=True, eq=False)
class _Brackets:
    """A pair of brackets, and the factor of the weights inside it."""

    factor: float


def _items(prompt: str) -> list[str | _Brackets]:
    """Text without its escapes, and each pair of brackets where it opens and, if it does, where it closes."""
    items: list[str | _Brackets] = []
    opened: dict[str, list[_Brackets]] = {"(": [], "[": []}
    for symbol in _SYMBOL.finditer(prompt):
        if symbol["open"]:
            pair = _Brackets(BRACKET_FACTOR if symbol["open"] == "(" else 1 / BRACKET_FACTOR)
            opened[symbol["open"]].append(pair)
            items.append(pair)
        elif (symbol["close"] or symbol["weight"]) and (waiting := opened[_OPENING[symbol["close"] or ")"]]):
            pair = waiting.pop()
            if symbol["weight"]:
                pair.factor = max(-MAX_WEIGHT, min(MAX_WEIGHT, float(symbol["weight"])))
            items.append(pair)
        else:
            items.append(symbol["escaped"] or symbol[0])
    return items


def chunks(words: Iterable[Word], *, length: int, start: int, end: int, padding: int) -> list[Chunk]:
    """Cut a text into chunks, at least one; all but the last are as full as whole words allow.

    Args:
        length: tokens of a chunk, its start and its end among them.
        start, end, padding: token ids; padding follows the end of a chunk that is not full.
    """
    return [_chunk(line, length, start, end, padding) for line in _lines(words, length - 2)]


def _chunk(line: Sequence[Word], length: int, start: int, end: int, padding: int) -> Chunk:
    tokens = (start, *(token for word in line for token in word.tokens), end)
    weights = (1.0, *(word.weight for word in line for _ in word.tokens), 1.0)
    missing = length - len(tokens)
    return Chunk(tokens + (padding,) * missing, weights + (1.0,) * missing)


def _lines(words: Iterable[Word], room: int) -> Sequence[Sequence[Word]]:
    """Words in lines of at most ``room`` tokens; only a word that is longer than a line is divided."""
    lines: list[list[Word]] = [[]]
    left = room
    for whole in words:
        for at in range(0, len(whole.tokens), room):
            word = Word(whole.tokens[at : at + room], whole.weight)
            if len(word.tokens) > left:
                lines.append([])
                left = room
            lines[-1].append(word)
            left -= len(word.tokens)
    return lines
