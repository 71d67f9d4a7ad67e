"""Keep the large matrices of a text encoder in eight or four bits, by torchao."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pipelines.weights.kinds import Quantization

BLOCK = 64
"""The numbers that share a scale in four bits."""

_SCALES_TOGETHER = (256, 64, 32, 16)
"""How many of those scales are quantized together: as many as divide a matrix."""


class QuantizationMissing(Exception):
    """The library is not installed; ``str(error)`` says how it is."""


def quantize(
    network: torch.nn.Module,
    quantization: Quantization,
    device: torch.device,
    pause: Callable[[], None] = lambda: None,
) -> None:
    """Replace the matrices of all linear layers; embeddings, normalisations and biases stay as they are.

    Four bits are those of NormalFloat (Dettmers et al. 2023), which torchao has for every device.

    Args:
        device: where four bits are rounded to; the matrices stay where they are.
        pause: is called after each matrix.
    Raises:
        QuantizationMissing: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_, to_nf4
    except ImportError as error:
        how = "install understudy-server[quantize], or leave `quantize` out of weights.yaml"
        raise QuantizationMissing(f"quantized text encoders need torchao: {how}") from error
    for layer in [module for module in network.modules() if isinstance(module, torch.nn.Linear)]:
        if quantization == "int8":
            quantize_(layer, Int8WeightOnlyConfig())
        else:
            place = layer.weight.device
            rounded = _in_four_bits(to_nf4, layer.weight.detach().to(device))
            if rounded is not None:
                layer.weight = torch.nn.Parameter(rounded.to(place), requires_grad=False)
        pause()


def _in_four_bits(to_nf4: Any, weight: Tensor) -> Tensor | None:
    """The matrix in four bits; None where it is too small or too odd to be divided into blocks."""
    blocks, rest = divmod(weight.numel(), BLOCK)
    together = next((size for size in _SCALES_TOGETHER if blocks % size == 0), None)
    if rest or together is None:
        return None
    return to_nf4(weight.contiguous(), BLOCK, together)


def is_quantized(network: torch.nn.Module) -> bool:
    """Whether some of its matrices were replaced."""
    return any(is_traceable_wrapper_subclass(parameter.data) for parameter in network.parameters())


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors of torch's own of which one consists: several where it is quantized, else itself."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from plain_tensors(getattr(tensor, name))


def stored_bytes(tensor: Tensor) -> int:
    """The bytes that a tensor takes; a quantized one says in ``nbytes`` what it would take otherwise."""
    return sum(plain.nbytes for plain in plain_tensors(tensor))
