"""The embeddings of Kandinsky's pictures: what the text encoder says of their canonical captions."""

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
"""Scenes of which the mean and the deviation are taken."""


@dataclass(frozen=True, slots=True)
class Read:
    """What the text encoder says of some texts.

    Attributes:
        whole: (B, width) of each as a whole.
        tokens: (B, L, width), as many as the longest text has.
        mask: (B, L), true where a text has not ended yet.
    """

    whole: Tensor
    tokens: Tensor
    mask: Tensor


@torch.no_grad()
def read(texts: Sequence[str]) -> Read:
    """On the CPU, always with the weights of the shared text encoder."""
    inputs = word_tokenizer()(
        list(texts), padding="longest", max_length=77, truncation=True, return_tensors="pt"
    )
    said = _encoder()(inputs.input_ids)
    return Read(said.text_embeds, said.last_hidden_state, inputs.attention_mask.bool())


def embeddings(scenes: Sequence[Scene]) -> Tensor:
    """(B, width), normalised: a mean of 0 and a deviation of 1 over the scenes of the world."""
    mean, deviation = statistics()
    return (_said(scenes) - mean) / deviation


@cache
def statistics() -> tuple[Tensor, Tensor]:
    """(width,) each: mean and standard deviation of what the text encoder says."""
    said = _said([random_scene(-1 - seed) for seed in range(COUNTED)])
    return said.mean(0), said.std(0)


def _said(scenes: Sequence[Scene]) -> Tensor:
    texts = [caption(scene) for scene in scenes]
    return torch.cat([read(texts[first : first + 64]).whole for first in range(0, len(texts), 64)])


@cache
def _encoder() -> CLIPTextModelWithProjection:
    return trained_projecting_text_encoder()
