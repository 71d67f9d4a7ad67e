"""Textual inversions: new words for the text encoders, there only while a prompt is encoded."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.errors import UnknownAdapter
from pipelines.weights.embedding_names import ONLY

Vectors = Mapping[str, Tensor]
"""The vectors of a word (n, width) by the text encoder that reads them."""

_LETTER = "0-9A-Za-z_\u00c0-\u024f\u0370-\u052f"
"""Letters of scripts that have blanks between words, as a set of characters."""


@dataclass(frozen=True, slots=True)
class NewWords:
    """Words of textual inversions, and their tokens.

    Attributes:
        tokens: text encoder -> word -> a token for each of its vectors.
    """

    tokens: Mapping[str, Mapping[str, tuple[int, ...]]]

    def split(self, text: str, encoder: str) -> Iterator[str | tuple[int, ...]]:
        """A text in pieces: texts that have no new word, and the tokens of new words."""
        own = self.tokens.get(encoder, {})
        at = 0
        for found, word in _found(text, own):
            yield text[at : found.start()]
            yield own[word]
            at = found.end()
        yield text[at:]

    def used(self, text: str) -> set[str]:
        """The words that are read in a text."""
        return {word for own in self.tokens.values() for _, word in _found(text, own)}


@contextmanager
def attached(pipeline: Any, words: Mapping[str, Vectors]) -> Generator[NewWords]:
    """Give the text encoders the vectors of new words inside the block.

    Embedding tables are replaced, never changed, and put back at the end; tokenizers do not learn the words.
    """
    encoders = dict.fromkeys(encoder for vectors in words.values() for encoder in vectors)
    before = {encoder: getattr(pipeline, encoder).get_input_embeddings() for encoder in encoders}
    try:
        yield NewWords(
            {
                encoder: _extend(pipeline, encoder, {word: each[encoder] for word, each in words.items()})
                for encoder in encoders
            }
        )
    finally:
        for encoder, table in before.items():
            getattr(pipeline, encoder).set_input_embeddings(table)


def asked_words(
    pipeline: Any, names: Iterable[str], adapters: AdapterLibrary, family: str
) -> dict[str, Vectors]:
    """The vectors of the textual inversions that a request names.

    Raises:
        UnknownAdapter: one is not known or does not fit.
    """
    words: dict[str, Vectors] = {}
    for name in dict.fromkeys(names):
        fitting = fitting_vectors(pipeline, adapters.embedding(name, family).vectors)
        if fitting is None:
            raise UnknownAdapter("embeddings", f"{name} does not fit this checkpoint")
        words[name] = fitting
    return words


def fitting_vectors(pipeline: Any, vectors: Vectors) -> Vectors | None:
    """A file's vectors by the attributes of a pipeline; None where they do not fit its text encoders."""
    if getattr(pipeline, "text_encoder_2", None) is not None:
        encoders = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    else:
        encoders = {"text_encoder": ONLY}
    if vectors.keys() != set(encoders.values()):
        return None
    found = {encoder: vectors[key] for encoder, key in encoders.items()}
    widths = {
        encoder: getattr(pipeline, encoder).get_input_embeddings().weight.shape[1] for encoder in encoders
    }
    return found if all(rows.shape[1] == widths[encoder] for encoder, rows in found.items()) else None


def _extend(pipeline: Any, encoder: str, words: Vectors) -> dict[str, tuple[int, ...]]:
    """Add the vectors of words at the end of an embedding table; the tokens of each word."""
    network = getattr(pipeline, encoder)
    table: Tensor = network.get_input_embeddings().weight
    network.set_input_embeddings(
        torch.nn.Embedding.from_pretrained(torch.cat([table, *(rows.to(table) for rows in words.values())]))
    )
    tokens: dict[str, tuple[int, ...]] = {}
    end = len(table)
    for word, rows in words.items():
        tokens[word] = tuple(range(end, end + len(rows)))
        end += len(rows)
    return tokens


def _found(text: str, words: Iterable[str]) -> Iterator[tuple[re.Match[str], str]]:
    """Each place of a text where a word stands for itself, in whatever case, and not inside a longer word."""
    by_letters = {_same(word): word for word in reversed(list(words)) if word.strip()}
    if not by_letters:
        return
    longest_first = sorted(by_letters, key=len, reverse=True)
    for match in re.finditer("|".join(map(_pattern, longest_first)), text, re.IGNORECASE):
        found = re.sub(r"\s+", " ", match[0])
        yield match, found if found in words else by_letters[_same(found)]


def _same(word: str) -> str:
    """A word as CLIP's tokenizers read it, for which case and the number of blanks make no difference."""
    return " ".join(word.lower().split())


def _pattern(word: str) -> str:
    written = r"\s+".join(map(re.escape, word.split()))
    before = f"(?<![{_LETTER}])" if re.match(f"[{_LETTER}]", word) else ""
    after = f"(?![{_LETTER}])" if re.search(f"[{_LETTER}]$", word) else ""
    return before + written + after
