"""Texts that are longer than a text encoder reads: what is left out of them, in the caller's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_QUOTE = 40
"""The most characters that a warning quotes of what is left out: in a header each may take twelve."""
LONGEST_WORD = 40
"""A text is quoted from the beginning of the word in which it is cut, unless that word is longer: scripts
without blanks have none."""


def cut_warnings(
    texts: Mapping[str, str | None], tokenizer: Any, length: int, reader: str, fate: str = "is left out"
) -> tuple[str, ...]:
    """A sentence for each text of which a text encoder reads only the beginning.

    Args:
        texts: the texts by the names of their fields; None: the text is not read at all.
        length: the tokens that the encoder reads, with those that it puts around every text.
        reader: the encoder's name.
        fate: what becomes of the rest.
    """
    rests = {field: unread(text, tokenizer, length) for field, text in texts.items() if text}
    return tuple(
        f'{field}: {reader} reads only its first {length} tokens; what begins with "{_quoted(rest)}" {fate}'
        for field, rest in rests.items()
        if rest
    )


def unread(text: str, tokenizer: Any, length: int) -> str:
    """The end of a text that does not fit into so many tokens, from the word on that is cut; blanks alone are
    nothing."""
    if _count(text, tokenizer) <= length:
        return ""
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _count(text[:middle], tokenizer) <= length:
            fits = middle
        else:
            too_long = middle
    # The character before `too_long` is the first that does not fit.
    word = next(start for start in range(too_long, -1, -1) if start == 0 or text[start - 1].isspace())
    rest = text[word if fits - word <= LONGEST_WORD else fits :]
    return rest if rest.strip() else ""


def _count(text: str, tokenizer: Any) -> int:
    # Not verbose: the tokenizer would complain that the text is longer than the encoder reads.
    return len(tokenizer(text, verbose=False)["input_ids"])


def _quoted(rest: str) -> str:
    words = " ".join(rest.split())
    return words if len(words) <= LONGEST_QUOTE else words[:LONGEST_QUOTE].rstrip() + "..."
