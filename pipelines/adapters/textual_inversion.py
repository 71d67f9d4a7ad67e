"""Textual inversions: new words for the text encoders, there only while a prompt is encoded."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.errors import UnknownAdapter

_TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


@contextmanager
def attached(pipeline: Any, names: tuple[str, ...], adapters: AdapterLibrary, family: str) -> Generator[None]:
    """Make each name a word of the pipeline's tokenizers, with its own vectors, inside the block.

    Tokenizers and embedding tables are replaced, never changed, and put back at the end.

    Raises:
        UnknownAdapter: a textual inversion is not known or does not fit.
    """
    files = {name: adapters.embedding(name, family).tensors for name in dict.fromkeys(names)}
    words = {name: _by_encoder(name, tensors, pipeline) for name, tensors in files.items()}
    encoders = list(next(iter(words.values()), {}))
    before = {
        encoder: (
            getattr(pipeline, _TOKENIZERS[encoder]),
            getattr(pipeline, encoder).get_input_embeddings(),
        )
        for encoder in encoders
    }
    try:
        for encoder in encoders:
            _extend(pipeline, encoder, {name: vectors[encoder] for name, vectors in words.items()})
        yield
    finally:
        for encoder, (tokenizer, table) in before.items():
            setattr(pipeline, _TOKENIZERS[encoder], tokenizer)
            getattr(pipeline, encoder).set_input_embeddings(table)


def _by_encoder(name: str, tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor]:
    """The vectors (n, width) for each text encoder; files for SDXL name theirs, others hold one tensor."""
    if getattr(pipeline, "text_encoder_2", None) is not None:
        keys = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    else:
        keys = {"text_encoder": "emb_params" if "emb_params" in tensors else next(iter(tensors), "")}
    if not set(keys.values()) <= tensors.keys():
        raise UnknownAdapter("embeddings", f"{name} does not fit this checkpoint")
    vectors = {encoder: torch.atleast_2d(tensors[key]) for encoder, key in keys.items()}
    for encoder, rows in vectors.items():
        if (
            rows.ndim != 2
            or rows.shape[1] != getattr(pipeline, encoder).get_input_embeddings().weight.shape[1]
        ):
            raise UnknownAdapter("embeddings", f"{name} does not fit this checkpoint")
    return vectors


def _extend(pipeline: Any, encoder: str, words: Mapping[str, Tensor]) -> None:
    """Add words to a tokenizer and its embedding table; n vectors are n tokens, in diffusers' names."""
    tokenizer = copy.deepcopy(getattr(pipeline, _TOKENIZERS[encoder]))
    table: Tensor = getattr(pipeline, encoder).get_input_embeddings().weight
    vocabulary = tokenizer.get_vocab()
    added: dict[int, Tensor] = {}
    for name, vectors in words.items():
        if name in vocabulary:
            raise UnknownAdapter("embeddings", f"{name} is a word that the text encoder has already")
        for index, vector in enumerate(vectors):
            token = name if index == 0 else f"{name}_{index}"
            tokenizer.add_tokens(token)
            added[tokenizer.convert_tokens_to_ids(token)] = vector
    extended = table.new_zeros((max(table.shape[0], max(added) + 1), table.shape[1]))
    extended[: table.shape[0]] = table
    for token_id, vector in added.items():
        extended[token_id] = vector.to(extended)
    setattr(pipeline, _TOKENIZERS[encoder], tokenizer)
    getattr(pipeline, encoder).set_input_embeddings(torch.nn.Embedding.from_pretrained(extended))
