"""A ChatGLM tokenizer that knows the little world's words whole, in English and in Chinese."""
# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# diffusers and sentencepiece are only partly typed.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers.pipelines.kolors import ChatGLMTokenizer
from sentencepiece import sentencepiece_model_pb2

from pipelines.demo.captions import CHINESE
from pipelines.demo.words import ENGLISH, QUALITIES

_SPACE = "\u2581"
_CHINESE = ("一张图片", "背景", "的", "和", "有", "在", "，", "：")
_WHOLE, _LETTER = -1.0, -10.0
"""Logarithms of likelihoods; whatever the words around, a word costs less than its letters."""


_WORDS = (*(_SPACE + word for word in (*ENGLISH, *QUALITIES)), *_CHINESE, *filter(None, CHINESE.values()))


def glm_tokenizer(folder: Path, words: Sequence[str] = _WORDS) -> ChatGLMTokenizer:
    """A tokenizer whose vocabulary lies in ``folder`` then; saving it reads that file again.

    Args:
        words: what it knows whole.
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
    model = sentencepiece_model_pb2.ModelProto()
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    model.pieces.add(piece="<unk>", score=0.0, type=kinds.UNKNOWN)
    model.pieces.add(piece="<s>", score=0.0, type=kinds.CONTROL)
    model.pieces.add(piece="</s>", score=0.0, type=kinds.CONTROL)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=_LETTER, type=kinds.BYTE)
    letters = [_SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    scores = dict.fromkeys(words, _WHOLE) | dict.fromkeys(letters, _LETTER)
    for piece, score in scores.items():
        model.pieces.add(piece=piece, score=score, type=kinds.NORMAL)
    model.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.UNIGRAM
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString(deterministic=True)
