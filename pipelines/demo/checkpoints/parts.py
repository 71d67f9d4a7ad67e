"""Parts of the small checkpoints: weights from files, reproducible weights, a byte-level CLIP tokenizer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

WEIGHTS = Path(__file__).parents[1] / "weights"
"""The folder of the trained networks' weights."""

Network = TypeVar("Network", bound=torch.nn.Module)


def fill(module: torch.nn.Module, seed: int) -> None:
    """Overwrite every parameter with reproducible fp32 numbers, in place.

    Matrices and convolutions are uniform in +-sqrt(3 / fan_in), which has a variance of 1 / fan_in. Vectors
    named ``weight`` belong to normalisations and become ones, all others zeros. NumPy's PCG64 makes the raw
    integers and one exact division the floats, so that all machines agree to the last bit.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + (seed << 32)))
            integers = generator.integers(0, 2**24, size=tuple(parameter.shape), dtype=np.int64)
            uniform = integers.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
            fan_in = parameter[0].numel()
            parameter.copy_(torch.from_numpy(uniform) * (3.0 / fan_in) ** 0.5)


def load_trained(module: Network, file: str, part: str) -> Network:
    """Load the weights of a part of ``weights/<file>.safetensors``, in place.

    Raises:
        RuntimeError: the weights are those of another network.
    """
    module.load_state_dict(load_part(file, part))
    return module.eval()


def load_weights(file: str) -> dict[str, Tensor]:
    """The tensors of ``weights/<file>.safetensors``, in full precision."""
    return {name: tensor.float() for name, tensor in load_file(WEIGHTS / f"{file}.safetensors").items()}


def load_part(file: str, part: str) -> dict[str, Tensor]:
    """The tensors of one network in ``weights/<file>.safetensors``, by its own names."""
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in load_weights(file).items()
        if name.startswith(prefix)
    }


def save_weights(tensors: Mapping[str, Tensor], file: str, metadata: Mapping[str, str]) -> Path:
    """Write ``weights/<file>.safetensors`` in half precision, with metadata."""
    halves = {name: tensor.detach().half().cpu().contiguous() for name, tensor in tensors.items()}
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{file}.safetensors"
    save_file(halves, path, metadata=dict(metadata))
    return path


def metadata_of(file: str) -> Mapping[str, str]:
    """The metadata of ``weights/<file>.safetensors``."""
    weights: Any = safe_open(WEIGHTS / f"{file}.safetensors", "pt")
    with weights as tensors:
        return tensors.metadata()


def byte_level_tokenizer(words: Iterable[str] = ()) -> CLIPTokenizer:
    """A CLIP tokenizer that knows some words whole, and every other word byte by byte.

    Its tokens are bytes (256), bytes that end a word (256), the results of the merges, start and end.
    """
    symbols = list(bytes_to_unicode().values())
    tokens = dict.fromkeys([*symbols, *(symbol + "</w>" for symbol in symbols)])
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        known, *rest = _pieces(word, merges)
        for piece in rest:
            merges.setdefault((known, piece), len(merges))
            known += piece
            tokens[known] = None
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    made: Any = list(merges)
    return CLIPTokenizer(vocab=vocabulary, merges=made, model_max_length=77)


def _pieces(word: str, merges: Mapping[tuple[str, str], int]) -> list[str]:
    """The pieces of a word after the merges so far, applied in the order in which they were made."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        at = list(pairwise(pieces)).index(min(known, key=merges.__getitem__))
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    return pieces
