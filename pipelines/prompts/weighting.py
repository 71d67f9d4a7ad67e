"""What brackets in a prompt mean, and how a prompt of any length is cut into what CLIP reads at once."""

# Why: pipelines/decisions/0005.

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

ROUND = 1.1
"""What one pair of round brackets multiplies a weight by; square ones divide by it."""

STRONGEST = 10.0
"""Weights beyond this, either way, count as this: more is noise, and infinities are no pictures."""

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
    """Token ids that may not be torn apart, all of one weight."""

    tokens: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a text encoder reads at once: token ids with start and end, and the weight of each."""

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
            phrases.append(Phrase(item, max(-STRONGEST, min(STRONGEST, weight))))
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
    """A pair of brackets."""

    factor: float


def _items(prompt: str) -> list[str | _Brackets]:
    """Text as it is meant, and each pair of brackets where it opens and, if it does, where it closes."""
    items: list[str | _Brackets] = []
    opened: dict[str, list[_Brackets]] = {"(": [], "[": []}
    for symbol in _SYMBOL.finditer(prompt):
        if symbol["open"]:
            pair = _Brackets(ROUND if symbol["open"] == "(" else 1 / ROUND)
            opened[symbol["open"]].append(pair)
            items.append(pair)
        elif (symbol["close"] or symbol["weight"]) and (waiting := opened[_OPENING[symbol["close"] or ")"]]):
            pair = waiting.pop()
            if symbol["weight"]:
                pair.factor = max(-STRONGEST, min(STRONGEST, float(symbol["weight"])))
            items.append(pair)
        else:
            items.append(symbol["escaped"] or symbol[0])
    return items


def chunks(words: Iterable[Word], *, length: int, start: int, end: int, padding: int) -> list[Chunk]:
    """Cut a text into chunks that are full but for the last, at least one.

    Args:
        length: tokens of a chunk, its start and its end among them.
        start, end, padding: token ids; a chunk that is not full has its end after its last word.
    """
    return [_chunk(line, length, start, end, padding) for line in _lines(words, length - 2)]


def _chunk(line: Sequence[Word], length: int, start: int, end: int, padding: int) -> Chunk:
    tokens = (start, *(token for word in line for token in word.tokens), end)
    weights = (1.0, *(word.weight for word in line for _ in word.tokens), 1.0)
    missing = length - len(tokens)
    return Chunk(tokens + (padding,) * missing, weights + (1.0,) * missing)


def _lines(words: Iterable[Word], room: int) -> Sequence[Sequence[Word]]:
    """Words in lines of at most that many tokens; only a word that is longer than a line is torn."""
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
