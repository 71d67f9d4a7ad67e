"""The words of the little world that are whole tokens of ChatGLM's small tokenizer."""

from __future__ import annotations

from pipelines.checkpoints.tokenizers import SPACE
from pipelines.demo.checkpoints.words import ENGLISH, QUALITIES
from pipelines.demo.world.captions import CHINESE

_CHINESE = ("一张图片", "背景", "的", "和", "有", "在", "，", "：")

GLM_WORDS = (*(SPACE + word for word in (*ENGLISH, *QUALITIES)), *_CHINESE, *filter(None, CHINESE.values()))
"""The words of prompts about the little world; SentencePiece writes a space before English words."""
