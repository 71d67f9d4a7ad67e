"""The embeddings of Kandinsky's pictures: the text encoder's embeddings of their canonical captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from pipelines.demo.checkpoints.sd15 import trained_projecting_text_encoder
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.world.captions import caption
from pipelines.demo.world.world import Scene, random_scene

COUNTED = 4096
"""The number of scenes from which the mean and the deviation are taken."""


@dataclass(frozen=True, slots=True)
class Read:
    """The text encoder's states for some texts.

    Attributes:
        whole: (B, width) embeddings of the whole texts.
        tokens: (B, L, width) states of the tokens, as many as the longest text has.
        mask: (B, L), true where a text has not ended yet.
    """

    whole: Tensor
    tokens: Tensor
    mask: Tensor


@torch.no_grad()
def read(texts: Sequence[str]) -> Read:
    """Encode texts on the CPU, always with the weights of the shared text encoder."""
    inputs = word_tokenizer()(
        list(texts), padding="longest", max_length=77, truncation=True, return_tensors="pt"
    )
    said = _encoder()(inputs.input_ids)
    return Read(said.text_embeds, said.last_hidden_state, inputs.attention_mask.bool())


def embeddings(scenes: Sequence[Scene]) -> Tensor:
    """The (B, width) embeddings, normalised to a mean of 0 and a deviation of 1 over the world."""
    mean, deviation = statistics()
    return (_said(scenes) - mean) / deviation


@cache
def statistics() -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation, (width,) each, of the text encoder's embeddings."""
    said = _said([random_scene(-1 - seed) for seed in range(COUNTED)])
    return said.mean(0), said.std(0)


def _said(scenes: Sequence[Scene]) -> Tensor:
    texts = [caption(scene) for scene in scenes]
    return torch.cat([read(texts[first : first + 64]).whole for first in range(0, len(texts), 64)])


@cache
def _encoder() -> CLIPTextModelWithProjection:
    return trained_projecting_text_encoder()
