"""CLIP encodes the prompts of SD1.5 and SDXL: of any length, with weighted words, new words and LoRAs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, takewhile
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.loras import AttachedLoras
from pipelines.adapters.textual_inversion import NewWords, asked_words, attached
from pipelines.denoising.needs import NOTHING, Parts
from pipelines.denoising.sample import Conditioning
from pipelines.errors import InvalidInput
from pipelines.lru import LRUCache
from pipelines.prompts.weighting import Chunk, Phrase, Word, chunks, weighted_phrases
from pipelines.request import Lora, Prompted

MAX_CHUNKS_PER_PROMPT = 32
"""The most chunks of one text: cross-attention then costs about as much as self-attention at 512 x 512."""

CACHE_BYTES = 128 * 1024**2
"""The most bytes of encoded prompts kept on the device; an ordinary prompt takes about half a megabyte."""

_ENCODERS = ("text_encoder", "text_encoder_2")
"""The attributes of a diffusers pipeline that have its text encoders."""

NEGLIGIBLE_MEAN = 0.01
"""The smallest mean, as a part of the mean magnitude, that is more than an accident of rounding."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt(Conditioning):
    """Both texts of a request as inputs of a UNet, by the names of its arguments.

    Attributes:
        positive: ``encoder_hidden_states`` (1, 77 n, width), n the chunks of the longer text. SDXL has the
            states of both encoders side by side, and ``text_embeds`` (1, width), the second encoder's pooled
            embedding of the first chunk.
        negative: the same of the negative prompt; None without guidance.
        warnings: sentences for the caller.
    """

    positive: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        halves = (self.positive, self.negative or {})
        return sum(tensor.nbytes for half in halves for tensor in half.values())


@dataclass(frozen=True, slots=True)
class _PromptFields:
    """The fields of a request that its encoded prompt depends on."""

    positive: str
    negative: str | None
    weighted: bool
    with_negative: bool
    clip_skip: int
    loras: tuple[Lora, ...]
    embeddings: tuple[str, ...]


class PromptEncoder:
    """The text encoders of one pipeline, with a cache of the prompts that were encoded last."""

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
        self._prompts: LRUCache[_PromptFields, EncodedPrompt] = LRUCache(
            CACHE_BYTES, lambda encoded: encoded.nbytes
        )

    def encode(self, request: Prompted) -> EncodedPrompt:
        """Encode both texts; the negative one only with guidance.

        A prompt of at most 75 tokens without weights gives diffusers' ``encode_prompt`` to the last bit;
        as there, ``clip_skip`` is for the prompt alone.

        Raises:
            InvalidInput: a text is too long, or ``clip_skip`` too large.
            UnknownAdapter: a LoRA or an embedding is not known or does not fit.
        """
        fields = self._fields(request)
        return self._prompts.get(fields, lambda: self._encode(fields))

    def parts(self, request: Prompted) -> Parts:
        """The names of the text encoders that `encode` would evaluate; none where the texts are cached."""
        if self._fields(request) in self._prompts:
            return NOTHING
        return frozenset(_ENCODERS if self._two else _ENCODERS[:1])

    def _fields(self, request: Prompted) -> _PromptFields:
        return _PromptFields(
            request.prompt,
            request.negative_prompt,
            request.prompt_weighting,
            request.guidance_scale > 1 and self._pipeline.unet.config.time_cond_proj_dim is None,
            request.clip_skip or 0,
            request.loras,
            request.embeddings,
        )

    def clear_cache(self) -> None:
        """Drop the encoded prompts."""
        self._prompts.clear()

    def _encode(self, fields: _PromptFields) -> EncodedPrompt:
        self._check_clip_skip(fields.clip_skip)
        # This also switches the UNet's LoRAs while a group with others may be running. That group is safe,
        # because the loop calls `Pipeline.attach` with its key before every evaluation.
        self._loras.use(fields.loras)
        asked = asked_words(self._pipeline, fields.embeddings, self._adapters, self._family)
        bundled, more = self._loras.bundled_words()
        with attached(self._pipeline, {**bundled, **asked}) as words:
            warnings = (*_unused_embeddings(fields, words), *self._loras.warnings(), *more)
            # A list for each text encoder: textual inversions may give them words of unequal length.
            prompt = self._cut("prompt", fields.positive, fields.weighted, words)
            negative_prompt = self._cut("negative_prompt", fields.negative or "", fields.weighted, words)
            count = max(len(cut) for cut in chain(prompt, negative_prompt if fields.with_negative else []))
            positive = self._conditioning(prompt, count, fields.clip_skip)
            if not fields.with_negative:
                return EncodedPrompt(positive, None, warnings)
            if self._zeros_for_negative(fields):
                negative = {name: torch.zeros_like(tensor) for name, tensor in positive.items()}
            else:
                negative = self._conditioning(negative_prompt, count, clip_skip=0)
            return EncodedPrompt(positive, negative, warnings)

    def _check_clip_skip(self, clip_skip: int) -> None:
        layers = min(encoder.config.num_hidden_layers for encoder, _ in self._text_encoders())
        if not 0 <= clip_skip <= layers - self._two:
            # SDXL leaves the last layer out already without any skipping.
            few = f"at most {layers - 1} layers can be left out"
            raise InvalidInput("clip_skip", few if self._two else f"the text encoder has {layers} layers")

    def _zeros_for_negative(self, fields: _PromptFields) -> bool:
        """Whether zeros stand for the negative prompt, as in SDXL where none is given."""
        return self._two and fields.negative is None and self._pipeline.config.force_zeros_for_empty_prompt

    def _text_encoders(self) -> list[tuple[Any, Any]]:
        """The text encoders with their tokenizers."""
        pipeline = self._pipeline
        first = (pipeline.text_encoder, pipeline.tokenizer)
        return [first, (pipeline.text_encoder_2, pipeline.tokenizer_2)] if self._two else [first]

    def _cut(self, field: str, text: str, weighted: bool, words: NewWords) -> list[list[Chunk]]:
        """The chunks of a text, for each text encoder."""
        phrases = weighted_phrases(text) if weighted else [Phrase(text)]
        cut = [
            self._chunks(phrases, tokenizer, partial(words.split, encoder=name))
            for (_, tokenizer), name in zip(self._text_encoders(), _ENCODERS, strict=False)
        ]
        longest = max(map(len, cut))
        if longest > MAX_CHUNKS_PER_PROMPT:
            room = self._pipeline.tokenizer.model_max_length - 2
            raise InvalidInput(
                field, f"is longer than the {MAX_CHUNKS_PER_PROMPT * room} tokens that can be read"
            )
        return cut

    def _chunks(
        self,
        phrases: Sequence[Phrase],
        tokenizer: Any,
        split: Callable[[str], Iterable[str | tuple[int, ...]]] = lambda text: (text,),
    ) -> list[Chunk]:
        words = [
            Word(tokens, phrase.weight)
            for phrase in phrases
            for piece in split(phrase.text)
            for tokens in ([piece] if isinstance(piece, tuple) else _words(piece, tokenizer))
        ]
        return chunks(
            words,
            length=tokenizer.model_max_length,
            start=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
            padding=tokenizer.pad_token_id,
        )

    def _conditioning(self, cut: list[list[Chunk]], count: int, clip_skip: int) -> dict[str, Tensor]:
        """One text as inputs of the UNet, filled up to ``count`` chunks."""
        states: list[Tensor] = []
        pooled: Tensor | None = None
        for (encoder, tokenizer), own in zip(self._text_encoders(), cut, strict=True):
            empty = self._chunks([Phrase("")], tokenizer)
            padded = [*own, *empty * (count - len(own))]
            hidden_states, outputs = self._evaluate(encoder, padded, clip_skip)
            states.append(_weighted(hidden_states, padded).flatten(0, 1)[None])
            pooled = outputs[0][:1] if self._two else None
        # Text encoders may have dtypes of their own.
        dtype = self._pipeline.unet.dtype
        conditioning = {"encoder_hidden_states": torch.cat([each.to(dtype) for each in states], -1)}
        return conditioning if pooled is None else {**conditioning, "text_embeds": pooled.to(dtype)}

    def _evaluate(self, encoder: Any, padded: Sequence[Chunk], clip_skip: int) -> tuple[Tensor, Any]:
        """The hidden states, (chunks, 77, width), and all outputs of the encoder."""
        tokens = torch.tensor([chunk.tokens for chunk in padded], device=self._device)
        outputs = encoder(tokens, output_hidden_states=True)
        if self._two:
            return outputs.hidden_states[-(clip_skip + 2)], outputs
        if clip_skip:
            # diffusers' own reaches for a module that transformers 5 no longer nests.
            return encoder.final_layer_norm(outputs.hidden_states[-(clip_skip + 1)]), outputs
        return outputs[0], outputs


def _words(text: str, tokenizer: Any) -> list[tuple[int, ...]]:
    """The token ids of each word, without start and end; a word that the checkpoint added is one."""
    added: Mapping[str, int] = tokenizer.added_tokens_encoder
    vectors = {token: _vectors(name, added) for name, token in added.items()}
    # Not verbose: the tokenizer would complain that the text is longer than the encoder reads at once.
    tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return [vectors.get(token, (token,)) for token in tokens]


def _vectors(name: str, added: Mapping[str, int]) -> tuple[int, ...]:
    """The tokens of a checkpoint's own word: diffusers gives its further vectors names with a number."""
    names = chain([name], (f"{name}_{index}" for index in count(1)))
    return tuple(added[part] for part in takewhile(added.__contains__, names))


def _weighted(states: Tensor, padded: Sequence[Chunk]) -> Tensor:
    """Hidden states with each token's multiplied by its weight, and each chunk scaled to its mean before.

    AUTOMATIC1111's web UI does the same. A chunk is not scaled where its mean is as good as zero or the
    weights turn its sign: such a mean does not measure the strength of a text.

    Args:
        states: (chunks, tokens, width).
    """
    if all(weight == 1.0 for chunk in padded for weight in chunk.weights):
        return states
    weights = torch.tensor([chunk.weights for chunk in padded], device=states.device)
    before = states.float()
    after = before * weights[..., None]
    mean_before, mean_after = before.mean((1, 2)), after.mean((1, 2))
    comparable = mean_before.abs() > NEGLIGIBLE_MEAN * before.abs().mean((1, 2))
    comparable &= mean_after.sign() == mean_before.sign()
    comparable &= mean_after.abs() > NEGLIGIBLE_MEAN * after.abs().mean((1, 2))
    scale = torch.where(comparable, mean_before / mean_after, torch.ones_like(mean_before))
    return (after * scale[:, None, None]).to(states.dtype)


def _unused_embeddings(fields: _PromptFields, words: NewWords) -> Iterator[str]:
    """A warning for each textual inversion whose word is in neither text that is read."""
    negative = words.used(fields.negative or "")
    read = words.used(fields.positive) | (negative if fields.with_negative else set())
    for name in dict.fromkeys(fields.embeddings):
        if name in read:
            continue
        if name in negative:
            yield f"embeddings: {name} is in the negative prompt alone, which is not read, and had no effect"
        else:
            yield f"embeddings: {name} is in neither prompt and had no effect"
