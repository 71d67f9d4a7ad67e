"""Prompt writers: causal language models that were trained on prompts and continue one (MagicPrompt)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.needs import Needs
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.drawing import Drawing
from pipelines.errors import InvalidInput
from pipelines.lru import LRUCache
from pipelines.request import Request, Rewriting

MAX_NEW_TOKENS = 60
"""The most tokens that are added to a prompt, about as many as CLIP reads of one at once."""

REPETITION_PENALTY = 1.2
"""The penalty of Keskar et al. 2019, section 4.1, without which greedy search goes round in circles."""

CACHED_TEXTS = 256
"""The number of prompts whose continuations are kept."""


class PromptWriter(Pipeline):
    """One opened checkpoint of a prompt writer.

    It searches greedily, so the same prompt always becomes the same longer one, whatever the seed.
    """

    def __init__(self, network: torch.nn.Module, tokenizer: Any, device: torch.device) -> None:
        self._network: Any = network
        self._tokenizer = tokenizer
        self._device = device
        self._longest: int = self._network.config.max_position_embeddings - MAX_NEW_TOKENS
        self._written: LRUCache[str, str] = LRUCache(CACHED_TEXTS)

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> PromptWriter:
        """Open the part ``model``, network and tokenizer."""
        automatic: Any = AutoModelForCausalLM  # a class that stands for many, and is no network itself
        network = checkpoint.module("model", automatic).eval()
        return cls(network, checkpoint.tokenizer("model", AutoTokenizer), checkpoint.device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"model": self._network}

    def clear_cache(self) -> None:
        self._written.clear()

    def needs(self, request: Request) -> Needs:
        return Needs(finish=frozenset({"model"}))

    def encode(self, request: Request) -> DirectAnswer:
        if not isinstance(request, Rewriting):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw, it writes prompts")
        return DirectAnswer(partial(self._answer, request.texts))

    @torch.no_grad()
    def _answer(self, texts: tuple[str, ...]) -> Drawing:
        """Continue each text; one that leaves the network no room comes back as it is."""
        continued = (self._written.get(text, partial(self._continued, text)) for text in texts)
        return Drawing(images=(), texts=tuple(continued))

    def _continued(self, text: str) -> str:
        tokens = self._tokenizer(text, return_tensors="pt").to(self._device)
        given = tokens.input_ids.shape[1]
        if not 0 < given <= self._longest:
            return text
        generated = self._network.generate(
            **tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=REPETITION_PENALTY,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=self._tokenizer.eos_token_id,
        )
        added = self._tokenizer.decode(generated[0, given:].cpu(), skip_special_tokens=True)
        # One line, up to the last finished phrase: greedy search ends in the middle of a word.
        added = " ".join(added.split("\n")[0].split())
        finished, comma, _ = added.rpartition(",")
        added = finished if comma else added
        if not added.strip(" ,"):
            return text
        return text.rstrip(" ,") + ("" if added.startswith(",") else " ") + added
