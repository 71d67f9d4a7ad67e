"""Syntax of other programs in prompts, which is named in warnings.

What it means elsewhere is documented by AUTOMATIC1111's web UI and its extensions, ComfyUI and Midjourney;
their users paste prompts here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

TAG = re.compile(r"<\s*(?P<kind>lora|lyco|locon|loha|hypernet)\s*:(?P<rest>[^<>]{0,300})>", re.IGNORECASE)
"""A tag that puts something on the networks, like ``<lora:NAME:0.8>``."""

_MEANINGLESS: Mapping[str, re.Pattern[str]] = {
    "{} is prompt editing": re.compile(
        r"\[[^\[\]|]{0,300}:\s{0,9}(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s{0,9}\]"
    ),
    "{} is an alternation of words": re.compile(r"\[[^\[\]|]{0,300}\|[^\[\]]{0,300}\]"),
    "{} is a choice of words": re.compile(r"\{[^{}|]{0,300}\|[^{}]{0,300}\}"),
    "{} is a wildcard": re.compile(r"(?<![\w/])__[A-Za-z0-9](?:[\w/*.-]{0,99}[A-Za-z0-9*])?__(?!\w)"),
    "{} is an embedding in another program's words; name it in embeddings_model": re.compile(
        r"\bembedding:[\w./-]*\w", re.IGNORECASE
    ),
    "{} is a flag of another program": re.compile(
        r"(?<!\S)--(?:(?:ar|aspect|v|version|stylize|s|q|quality|niji|no|seed|chaos|c|iw|tile|style|stop|uplight"
        r"|hd|test|testp|creative|weird|w|repeat|sref|cref|sw|cw|video|turbo|fast|relax|raw|p|draft|exp)(?![\w-])"
        r"(?:[ =](?:\d[\d.:/x]{0,30}|raw))?|[a-z][a-z-]{0,30}[ =]\d[\d.:/x]{0,30})"
    ),
    "{} is a weight in another program's words; write (word:1.3)": re.compile(
        r"[^\s:\[(]{1,40}::-?\d{1,9}(?:\.\d{1,9})?"
    ),
    "{} divides prompts by regions": re.compile(r"\b(?:ADDCOMM|ADDBASE|ADDCOL|ADDROW)\b"),
}
"""What a piece of text is elsewhere, by the sentence about it.

Every repetition is bounded, because prompts may be long.
"""

_SHOUTED = ("BREAK", "AND")
_WORD = re.compile(r"[^\W\d_][\w'-]*")

_LONGEST_QUOTE = 60
_MOST_WARNINGS = 12


def meaningless(prompt: str, *, advice: bool = True) -> list[str]:
    """A warning for each piece of syntax in a prompt that is read as words here.

    Args:
        advice: say what to write instead, in the words of pages that weigh words and have embeddings.
    """
    rest = TAG.sub(" ", prompt)
    found = [
        (sentence if advice else sentence.partition(";")[0]).format(quoted(match[0]))
        for sentence, pattern in _MEANINGLESS.items()
        for match in pattern.finditer(rest)
    ]
    found += [f"{word} is read as a word" for word in _shouted(rest)]
    told = [f"{each} and has no meaning here" for each in dict.fromkeys(found)]
    more = len(told) - _MOST_WARNINGS
    return told if more <= 0 else [*told[:_MOST_WARNINGS], f"{more} more have no meaning here"]


def without_tags(prompt: str) -> str:
    """The prompt without its tags, and without the commas and blanks that only parted them."""
    left, *parts = TAG.sub("\0", prompt).split("\0")
    for part in parts:
        before, after = left.rstrip(), part.lstrip()
        if before.endswith(",") and (not after or after.startswith(",")):
            before = before[:-1].rstrip()
        if not before:
            after = after.removeprefix(",").lstrip()
        apart = " " if before and after and not after.startswith(",") else ""
        left = f"{before}{apart}{after}"
    return left.strip()


def _shouted(prompt: str) -> Iterator[str]:
    """BREAK and AND between words that are not shouted themselves."""
    words = _WORD.findall(prompt)
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        around = [each for each in (before, after) if each and each not in _SHOUTED]
        shouted = any(each.isupper() and each not in ("A", "I") for each in around)
        if word in _SHOUTED and around and not shouted:
            yield word


def quoted(text: str) -> str:
    """The text, cut where it is long."""
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."
