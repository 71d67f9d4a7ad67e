"""The pipeline configurations and the CLIP vocabulary that ship with the project."""
# pyright: basic
# transformers is only partly typed.

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_CONFIGS = Path(__file__).with_name("configs")


def configuration(name: str) -> Path:
    """The folder of a configuration, in diffusers' layout without weights and vocabularies.

    Raises:
        KeyError: none of that name ships.
    """
    names = {folder.name for folder in _CONFIGS.iterdir() if folder.is_dir()} - {"clip"}
    if name not in names:
        raise KeyError(f"{name} is none of {', '.join(sorted(names))}")
    return _CONFIGS / name


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of all published CLIP models, with the special tokens of one configuration.

    Args:
        folder: a component folder with a ``tokenizer_config.json``.
    """
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    merges = _merges()
    symbols = list(bytes_to_unicode().values())
    tokens = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *(first + second for first, second in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    del settings["tokenizer_class"]
    return CLIPTokenizer(vocab=vocabulary, merges=cast(Any, merges), **settings)


@lru_cache(maxsize=1)
def _merges() -> list[tuple[str, str]]:
    lines = (_CONFIGS / "clip" / "merges.txt").read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split(" ") for line in lines)]
