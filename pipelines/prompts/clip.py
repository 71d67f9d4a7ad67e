"""CLIP reads the prompts of SD1.5 and SDXL: of any length, with weighted words, new words and LoRAs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, takewhile
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters import textual_inversion
from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.loras import AttachedLoras
from pipelines.errors import InvalidInput
from pipelines.lru import LRUCache
from pipelines.prompts.weighting import Chunk, Phrase, Word, chunks, weighted_phrases
from pipelines.request import Lora, Prompted

MAX_CHUNKS_PER_PROMPT = 32
"""Of one text at most. A picture of 512 x 512 then attends to its text about as long as to itself."""

KEPT_BYTES = 128 * 1024**2
"""Of encoded prompts, on the device; one of an ordinary length takes about half a megabyte."""

FAINT = 0.01
"""A mean below this part of the mean magnitude is an accident of rounding and no measure of anything."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a UNet is told of both texts, by the names of its arguments.

    Attributes:
        positive: ``encoder_hidden_states`` (1, 77 n, width), n the chunks of the longer text; of SDXL both
            encoders' side by side, and ``text_embeds`` (1, width), the second one's pooled embedding of the
            first chunk.
        negative: the same; None without guidance.
        warnings: in the caller's words.
    """

    positive: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        halves = (self.positive, self.negative or {})
        return sum(tensor.nbytes for half in halves for tensor in half.values())


@dataclass(frozen=True, slots=True)
class _Prompt:
    """All that the outcome depends on."""

    positive: str
    negative: str | None
    weighted: bool
    guided: bool
    clip_skip: int
    loras: tuple[Lora, ...]
    embeddings: tuple[str, ...]


class PromptEncoder:
    """The text encoders of one pipeline. Prompts that were read last are remembered."""

    def __init__(
        self,
        pipeline: Any,
        device: torch.device,
        adapters: AdapterLibrary,
        loras: AttachedLoras,
        family: str,
    ) -> None:
        """
        Args:
            pipeline: a Stable Diffusion (XL) pipeline of diffusers.
        """
        self._pipeline = pipeline
        self._device = device
        self._adapters = adapters
        self._loras = loras
        self._family = family
        self._two = getattr(pipeline, "text_encoder_2", None) is not None
        self._prompts: LRUCache[_Prompt, Encoded] = LRUCache(KEPT_BYTES, lambda encoded: encoded.nbytes)

    def encode(self, request: Prompted) -> Encoded:
        """Read both texts; the negative one where guidance will ask for it.

        Weights at 1 and at most 75 tokens give what diffusers' ``encode_prompt`` gives, to the last bit;
        as there, ``clip_skip`` is for the prompt alone.

        Raises:
            InvalidInput: a text is too long, ``clip_skip`` too large.
            UnknownAdapter: a LoRA or an embedding is not known or does not fit.
        """
        prompt = _Prompt(
            request.prompt,
            request.negative_prompt,
            request.prompt_weighting,
            request.guidance_scale > 1 and self._pipeline.unet.config.time_cond_proj_dim is None,
            request.clip_skip or 0,
            request.loras,
            request.embeddings,
        )
        return self._prompts.get(prompt, lambda: self._encode(prompt))

    def clear_cache(self) -> None:
        """Remember no prompt."""
        self._prompts.clear()

    def _encode(self, prompt: _Prompt) -> Encoded:
        self._check_clip_skip(prompt.clip_skip)
        self._loras.use(prompt.loras)
        warnings = (*_unused(prompt), *self._loras.warnings())
        with textual_inversion.attached(self._pipeline, prompt.embeddings, self._adapters, self._family):
            # A list for each text encoder: textual inversions may give them words of unequal length.
            positive = self._cut("prompt", prompt.positive, prompt.weighted)
            negative = self._cut("negative_prompt", prompt.negative or "", prompt.weighted)
            number = max(len(cut) for cut in chain(positive, negative if prompt.guided else []))
            told = self._states(positive, number, prompt.clip_skip)
            return Encoded(
                told,
                self._negative_states(prompt, negative, number, told) if prompt.guided else None,
                warnings,
            )

    def _check_clip_skip(self, clip_skip: int) -> None:
        layers = min(encoder.config.num_hidden_layers for encoder, _ in self._readers())
        if not 0 <= clip_skip <= layers - self._two:
            # SDXL leaves the last layer out already without any skipping.
            few = f"at most {layers - 1} layers can be left out"
            raise InvalidInput("clip_skip", few if self._two else f"the text encoder has {layers} layers")

    def _readers(self) -> list[tuple[Any, Any]]:
        """Text encoders with their tokenizers, as they are at this moment."""
        pipeline = self._pipeline
        first = (pipeline.text_encoder, pipeline.tokenizer)
        return [first, (pipeline.text_encoder_2, pipeline.tokenizer_2)] if self._two else [first]

    def _cut(self, field: str, text: str, weighted: bool) -> list[list[Chunk]]:
        phrases = weighted_phrases(text) if weighted else [Phrase(text)]
        cut = [self._chunks(phrases, tokenizer) for _, tokenizer in self._readers()]
        longest = max(map(len, cut))
        if longest > MAX_CHUNKS_PER_PROMPT:
            room = self._pipeline.tokenizer.model_max_length - 2
            raise InvalidInput(
                field, f"is longer than the {MAX_CHUNKS_PER_PROMPT * room} tokens that can be read"
            )
        return cut

    def _chunks(self, phrases: Sequence[Phrase], tokenizer: Any) -> list[Chunk]:
        words = [
            Word(tokens, phrase.weight) for phrase in phrases for tokens in _words(phrase.text, tokenizer)
        ]
        return chunks(
            words,
            length=tokenizer.model_max_length,
            start=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
            padding=tokenizer.pad_token_id,
        )

    def _negative_states(
        self, prompt: _Prompt, cut: list[list[Chunk]], number: int, like: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if self._two and prompt.negative is None and self._pipeline.config.force_zeros_for_empty_prompt:
            return {name: torch.zeros_like(tensor) for name, tensor in like.items()}
        return self._states(cut, number, clip_skip=0)

    def _states(self, cut: list[list[Chunk]], number: int, clip_skip: int) -> dict[str, Tensor]:
        states: list[Tensor] = []
        pooled: Tensor | None = None
        for (encoder, tokenizer), lines in zip(self._readers(), cut, strict=True):
            empty = self._chunks([Phrase("")], tokenizer)
            padded = [*lines, *empty * (number - len(lines))]
            read, outputs = self._read(encoder, padded, clip_skip)
            states.append(_weighted(read, padded).flatten(0, 1)[None])
            pooled = outputs[0][:1] if self._two else None
        told = {"encoder_hidden_states": torch.cat(states, -1)}
        return told if pooled is None else {**told, "text_embeds": pooled}

    def _read(self, encoder: Any, lines: Sequence[Chunk], clip_skip: int) -> tuple[Tensor, Any]:
        """Hidden states, (chunks, 77, width), and all that the encoder says."""
        tokens = torch.tensor([line.tokens for line in lines], device=self._device)
        outputs = encoder(tokens, output_hidden_states=True)
        if self._two:
            return outputs.hidden_states[-(clip_skip + 2)], outputs
        if clip_skip:
            # diffusers' own reaches for a module that transformers 5 no longer nests.
            return encoder.final_layer_norm(outputs.hidden_states[-(clip_skip + 1)]), outputs
        return outputs[0], outputs


def _words(text: str, tokenizer: Any) -> list[tuple[int, ...]]:
    """Token ids of a text without start and end; the name of a textual inversion is all of its vectors."""
    added: Mapping[str, int] = tokenizer.added_tokens_encoder
    vectors = {token: _vectors(name, added) for name, token in added.items()}
    # Not verbose: the tokenizer would complain that the text is longer than the encoder reads at once.
    tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return [vectors.get(token, (token,)) for token in tokens]


def _vectors(name: str, added: Mapping[str, int]) -> tuple[int, ...]:
    """The tokens of a word of the tokenizer: itself, and with a number behind it its further vectors."""
    names = chain([name], (f"{name}_{index}" for index in count(1)))
    return tuple(added[part] for part in takewhile(added.__contains__, names))


def _weighted(states: Tensor, lines: Sequence[Chunk]) -> Tensor:
    """Multiply each token's hidden states by its weight, then each chunk by what gives it its mean back.

    As in AUTOMATIC1111's web UI. Where a mean is as good as zero, or the weights turn its sign, it tells
    nothing of how strong a text is, and the chunk is left as it was multiplied.

    Args:
        states: (chunks, tokens, width).
    """
    if all(weight == 1.0 for line in lines for weight in line.weights):
        return states
    weights = torch.tensor([line.weights for line in lines], device=states.device)
    before = states.float()
    after = before * weights[..., None]
    mean, changed = before.mean((1, 2)), after.mean((1, 2))
    tells = mean.abs() > FAINT * before.abs().mean((1, 2))
    tells &= changed.sign() == mean.sign()
    tells &= changed.abs() > FAINT * after.abs().mean((1, 2))
    restored = torch.where(tells, mean / changed, torch.ones_like(mean))
    return (after * restored[:, None, None]).to(states.dtype)


def _unused(prompt: _Prompt) -> tuple[str, ...]:
    texts = f"{prompt.positive} {prompt.negative or ''}"
    return tuple(
        f"embeddings: {name} is in neither prompt and had no effect"
        for name in prompt.embeddings
        if name not in texts
    )
