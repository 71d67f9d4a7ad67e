"""Tokenizers that are made here: CLIP's published one, and ChatGLM's of a few words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sentencepiece import sentencepiece_model_pb2 as untyped_protobuf
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.checkpoints.diffusers_kolors import ChatGLMTokenizer
from pipelines.weights.configs import CLIP_MERGES

SPACE = "\u2581"
"""The character by which SentencePiece writes a space."""

_WHOLE, _LETTER = -1.0, -10.0
"""Log-likelihoods of a whole word and of a letter: a word always costs less than its letters."""


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
    lines = CLIP_MERGES.read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split(" ") for line in lines)]


def glm_tokenizer(folder: Path, words: Sequence[str]) -> ChatGLMTokenizer:
    """A ChatGLM tokenizer.

    Its vocabulary is written to ``folder`` and has to stay there, because saving the tokenizer reads it.

    Args:
        words: texts that become one token each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "tokenizer.model"
    vocabulary.write_bytes(_model(words))
    return ChatGLMTokenizer(str(vocabulary))


def _model(words: Sequence[str]) -> bytes:
    """A SentencePiece unigram model (Kudo 2018), put together piece by piece: the same bytes everywhere.

    Words, Latin letters, digits and punctuation; all else falls back to UTF-8 bytes, as the published
    tokenizer does for what it does not know.
    """
    protobuf: Any = untyped_protobuf
    model = protobuf.ModelProto()
    kinds = protobuf.ModelProto.SentencePiece
    model.pieces.add(piece="<unk>", score=0.0, type=kinds.UNKNOWN)
    model.pieces.add(piece="<s>", score=0.0, type=kinds.CONTROL)
    model.pieces.add(piece="</s>", score=0.0, type=kinds.CONTROL)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=_LETTER, type=kinds.BYTE)
    letters = [SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    scores = dict.fromkeys(words, _WHOLE) | dict.fromkeys(letters, _LETTER)
    for piece, score in scores.items():
        model.pieces.add(piece=piece, score=score, type=kinds.NORMAL)
    model.trainer_spec.model_type = protobuf.TrainerSpec.UNIGRAM
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString(deterministic=True)
