"""diffusers' own parts of Kolors. Importing them scripts a function, of which newer torch warns; not here."""

# Why: pipelines/decisions/0020.

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from diffusers.pipelines.kolors.pipeline_kolors import KolorsPipeline
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

__all__ = ["ChatGLMConfig", "ChatGLMModel", "ChatGLMTokenizer", "KolorsPipeline"]
