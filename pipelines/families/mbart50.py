"""mBART-50 translates prompts of many languages into English before they are drawn (Tang et al. 2020)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import MBart50Tokenizer, MBartForConditionalGeneration

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.needs import Needs
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.drawing import Drawing
from pipelines.errors import InvalidInput
from pipelines.lru import LRUCache
from pipelines.prompts.languages import ENGLISH, detect
from pipelines.request import Request, Rewriting

MAX_CHARACTERS = 2000
"""The most characters of a prompt: beam search takes time for each of them, and others wait meanwhile."""

MAX_PIECE_TOKENS = 128
"""The most tokens that are translated at once; longer prose is divided between phrases."""

BEAMS = 5
"""The number of beams in mBART-50's own generation settings."""

CACHED_TEXTS = 256
"""The number of texts whose translations are kept."""

_SYNTAX = re.compile(r"\s*(?::\s*\d*\.?\d+\s*(?=[)\]])|\\?[()\[\]]|<[^<>]*>)\s*")
"""Weights, brackets and <tokens>, which keep their places."""

_PHRASE = re.compile(r"[^,.;!?，、。；！？]*[,.;!?，、。；！？]*")
_LETTER = re.compile(r"[^\W\d_]")


class MBart50(Pipeline):
    """One opened checkpoint of mBART-50."""

    def __init__(
        self, network: MBartForConditionalGeneration, tokenizer: MBart50Tokenizer, device: torch.device
    ) -> None:
        self._network: Any = network
        self._tokenizer: Any = tokenizer
        self._device = device
        self._translated: LRUCache[str, str] = LRUCache(CACHED_TEXTS)

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> MBart50:
        """Open the part ``model``, network and tokenizer."""
        network = checkpoint.module("model", MBartForConditionalGeneration).eval()
        tokenizer = checkpoint.tokenizer("model", MBart50Tokenizer)
        return cls(network, tokenizer, checkpoint.device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"model": self._network}

    def clear_cache(self) -> None:
        self._translated.clear()

    def needs(self, request: Request) -> Needs:
        return Needs(finish=frozenset({"model"}))

    def encode(self, request: Request) -> DirectAnswer:
        if not isinstance(request, Rewriting):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw, it translates")
        for text in request.texts:
            if len(text) > MAX_CHARACTERS:
                raise InvalidInput(
                    "prompt", f"is too long to be translated; at most {MAX_CHARACTERS} characters are allowed"
                )
        return DirectAnswer(partial(self._answer, request.texts))

    @torch.no_grad()
    def _answer(self, texts: tuple[str, ...]) -> Drawing:
        """Translate each text into English; one that is English already comes back as it is."""
        translated = (self._translated.get(text, partial(self._in_english, text)) for text in texts)
        return Drawing(images=(), texts=tuple(translated))

    def _in_english(self, text: str) -> str:
        prose = _SYNTAX.sub(" ", text)
        language = detect(prose) if _LETTER.search(prose) else ENGLISH
        if language == ENGLISH:
            return text
        parts: list[str] = []
        end = 0
        for found in _SYNTAX.finditer(text):
            parts += [self._prose(text[end : found.start()], language), found.group()]
            end = found.end()
        return "".join((*parts, self._prose(text[end:], language)))

    def _prose(self, text: str, language: str) -> str:
        """The translation of text between brackets; text without letters stays."""
        if not _LETTER.search(text):
            return text
        return " ".join(self._translate(piece, language) for piece in self._pieces(text))

    def _pieces(self, text: str) -> list[str]:
        """The text in parts of at most `MAX_PIECE_TOKENS`, divided after punctuation."""
        pieces = [""]
        for phrase in _PHRASE.findall(text):
            longer = pieces[-1] + phrase
            if pieces[-1] and len(self._tokenizer.tokenize(longer)) > MAX_PIECE_TOKENS:
                pieces.append(phrase)
            else:
                pieces[-1] = longer
        return [piece.strip() for piece in pieces if piece.strip()]

    def _translate(self, text: str, language: str) -> str:
        self._tokenizer.src_lang = language
        tokens = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=2 * MAX_PIECE_TOKENS)
        generated = self._network.generate(
            **tokens.to(self._device),
            forced_bos_token_id=self._tokenizer.convert_tokens_to_ids(ENGLISH),
            num_beams=BEAMS,
            do_sample=False,
            max_new_tokens=2 * tokens.input_ids.shape[1] + 16,
        )
        return self._tokenizer.decode(generated[0].cpu(), skip_special_tokens=True).strip()
