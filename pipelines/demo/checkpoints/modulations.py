"""Store the matrices that modulate SD3's blocks in fewer numbers.

These matrices are a third of such a network. Their input, time and text, lies along a curve and among a few
words, so that a few directions of it carry nearly all of its variance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DIRECTIONS = 48
"""The number of directions, of 128, that carry all but a hundredth of the variance."""
_KEPT = "directions"


def shortened(tensors: Mapping[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
    """A network's tensors, with its modulations reduced to the directions that their inputs have.

    Args:
        inputs: (N, width) inputs of modulations, after the activation.
    """
    mean = inputs.mean(0)
    directions = torch.linalg.svd(inputs - mean, full_matrices=False).Vh[:DIRECTIONS]
    remainder = mean - directions.T @ (directions @ mean)
    short = dict(tensors)
    for name in filter(_is_modulation, tensors):
        bias = name.replace("weight", "bias")
        short[name] = tensors[name] @ directions.T
        short[bias] = tensors[bias] + tensors[name] @ remainder
    return short | {_KEPT: directions}


def lengthened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a network needs them, from those that `shortened` has returned."""
    directions = tensors[_KEPT]
    return {
        name: tensor @ directions if _is_modulation(name) else tensor
        for name, tensor in tensors.items()
        if name != _KEPT
    }


def _is_modulation(name: str) -> bool:
    """Whether a tensor is the matrix of a normalisation that time and text modulate."""
    return "norm" in name and name.endswith("linear.weight")
