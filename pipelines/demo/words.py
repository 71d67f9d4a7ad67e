# pyright: basic, reportArgumentType=false
# (transformers' tokenizers are only partly typed.)
"""A CLIP tokenizer that knows the little world's words whole, and every other word byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.demo.captions import CHINESE

_OF_CAPTIONS = (
    *("a", "an", "and", "at", "background", "of", "on", "picture", "the", "with", ","),
    *(part for word in CHINESE for part in word.split()),
)
QUALITIES = (
    "4k", "abstract", "anatomy", "arms", "artwork", "bad", "balance", "beautiful", "best", "blurry",
    "breasts",
    "cinematic", "cloned", "colors", "deformed", "detailed", "double", "drawing", "drawn", "engine", "extra",
    "face", "fat", "fingers", "focus", "frame", "glitchy", "hands", "high", "illustration", "in", "iso",
    "legs", "lighting", "limbs", "lips", "low", "mangled", "masterpiece", "missing", "mutated", "mutation",
    "naked", "nice", "octane", "out", "photo", "photography", "poorly", "professional", "proportions",
    "quality", "raw", "realistic", "redshift", "render", "resolution", "sharp", "simple", "symmetrical",
    "tile", "tiling", "torso", "ugly", "unedited", "unreal",
)  # fmt: skip
"""What is often written around the subject of a prompt, and says nothing about it."""


@cache
def word_tokenizer() -> CLIPTokenizer:
    """Bytes, bytes that end a word, what their merges make, start and end; 77 tokens at most."""
    symbols = list(bytes_to_unicode().values())
    tokens = dict.fromkeys([*symbols, *(symbol + "</w>" for symbol in symbols)])
    merges: dict[tuple[str, str], int] = {}
    for word in [*_OF_CAPTIONS, *QUALITIES]:
        known, *rest = _pieces(word, merges)
        for piece in rest:
            merges.setdefault((known, piece), len(merges))
            known += piece
            tokens[known] = None
    vocabulary = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=list(merges),
        model_max_length=77,
    )


def _pieces(word: str, merges: Mapping[tuple[str, str], int]) -> list[str]:
    """What is left of a word after the merges so far, applied in the order in which they were made."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        at = list(pairwise(pieces)).index(min(known, key=merges.__getitem__))
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    return pieces
