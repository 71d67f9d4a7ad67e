"""The words of the little world, English and Chinese, that ChatGLM's small tokenizer knows whole."""

from __future__ import annotations

from pipelines.checkpoints.tokenizers import SPACE
from pipelines.demo.checkpoints.words import ENGLISH, QUALITIES
from pipelines.demo.world.captions import CHINESE

_CHINESE = ("一张图片", "背景", "的", "和", "有", "在", "，", "：")

GLM_WORDS = (*(SPACE + word for word in (*ENGLISH, *QUALITIES)), *_CHINESE, *filter(None, CHINESE.values()))
"""What prompts about the little world are made of; SentencePiece writes a space before English words."""
