"""A CLIP tokenizer to which the little world's words are single tokens, and all other words are bytes."""

from __future__ import annotations

from functools import cache

from transformers import CLIPTokenizer

from pipelines.demo.checkpoints.parts import byte_level_tokenizer
from pipelines.demo.world.captions import CHINESE

ENGLISH = (
    *("a", "an", "and", "at", "background", "of", "on", "picture", "the", "with", ","),
    *(part for word in CHINESE for part in word.split()),
)
"""The words of captions; some stand here more than once."""
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
"""Words that are often written around the subject of a prompt, and say nothing about it."""


@cache
def word_tokenizer() -> CLIPTokenizer:
    """A tokenizer to which each word of captions, and of praise, is one token."""
    return byte_level_tokenizer([*ENGLISH, *QUALITIES])
