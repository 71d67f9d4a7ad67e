"""Matrices that modulate SD3's blocks, kept short: of time and text they hear a few directions only.

They are a third of such a network, and what they hear is a curve over time and a text of few words.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DIRECTIONS = 48
"""In which all but a hundredth of the variance lies, of 128."""
_KEPT = "directions"


def shortened(tensors: Mapping[str, Tensor], heard: Tensor) -> dict[str, Tensor]:
    """A network's tensors without what its modulations never hear.

    Args:
        heard: (N, width) of what modulations may hear, activated.
    """
    mean = heard.mean(0)
    directions = torch.linalg.svd(heard - mean, full_matrices=False).Vh[:DIRECTIONS]
    unheard = mean - directions.T @ (directions @ mean)
    short = dict(tensors)
    for name in filter(_is_modulation, tensors):
        bias = name.replace("weight", "bias")
        short[name] = tensors[name] @ directions.T
        short[bias] = tensors[bias] + tensors[name] @ unheard
    return short | {_KEPT: directions}


def lengthened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `shortened` has made, as networks need it."""
    directions = tensors[_KEPT]
    return {
        name: tensor @ directions if _is_modulation(name) else tensor
        for name, tensor in tensors.items()
        if name != _KEPT
    }


def _is_modulation(name: str) -> bool:
    """Whether a tensor is the matrix of a normalisation that hears time and text."""
    return "norm" in name and name.endswith("linear.weight")
