"""What the small checkpoints have in common: reproducible weights and a byte-level CLIP tokenizer."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


def fill(module: torch.nn.Module, seed: int) -> None:
    """Overwrite every parameter with reproducible fp32 numbers, in place.

    Uniform in +-sqrt(3 / fan_in) for matrices and convolutions (variance 1 / fan_in). Vectors named
    ``weight`` belong to normalisations and become ones, all others zeros. NumPy's PCG64 makes the raw
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


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer over single bytes: 514 entries (bytes, word-final bytes, start, end), no merges."""
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77
    )
