"""A LoRA's layers -> the layers of a pipeline's networks that they change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor

from pipelines.weights.adapter_recognition import DORA_MAGNITUDE

NETWORKS = ("unet", "text_encoder", "text_encoder_2")

_FIRST = re.compile(r"\.lora(_down|_A|\.down)\.weight$")
"""The end of the name of a LoRA's first matrix."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The part of a LoRA that fits a pipeline.

    Attributes:
        tensors: tensors of the layers that fit, as diffusers' loaders take them; the second matrices are
            multiplied by alpha / rank.
        layers: the number of the LoRA's layers.
        unmatched: the number of those for which the pipeline has no layer, or one of another shape.
    """

    tensors: Mapping[str, Tensor]
    layers: int
    unmatched: int


def match_layers(pipeline: Any, file: Mapping[str, Tensor]) -> Matched:
    """Match each layer of a LoRA with the layer that it changes.

    Args:
        file: a LoRA or DoRA in any naming that diffusers reads.
    Raises:
        ValueError, KeyError: diffusers does not read the naming, or a layer is not complete.
    """
    lora, extras = _split(file)
    tensors, _ = pipeline.lora_state_dict(lora, unet_config=pipeline.unet.config)
    matched: dict[str, Tensor] = {}
    elsewhere = {name for name in tensors if not name.startswith(tuple(f"{part}." for part in NETWORKS))}
    layers = unmatched = len({name.partition(".lora")[0] for name in elsewhere})
    for part in NETWORKS:
        network = getattr(pipeline, part, None)
        pairs = _pairs(part, tensors, network)
        fitting = {layer: pair for layer, pair in pairs.items() if _fits(_submodule(network, layer), pair)}
        layers += len(pairs)
        unmatched += len(pairs) - len(fitting)
        # diffusers reads these names correctly whichever layers there are.
        ends = ("lora_A", "lora_B") if part == "unet" else ("lora_linear_layer.down", "lora_linear_layer.up")
        for layer, pair in fitting.items():
            shaped = _shaped(pair, _submodule(network, layer).weight, extras.get(id(pair.first), _Extras()))
            for end, tensor in zip((*ends, "lora_magnitude_vector"), shaped, strict=False):
                matched[f"{part}.{layer}.{end}.weight"] = tensor
            if pair.bias is not None:
                matched[f"{part}.{layer}.{ends[1]}.bias"] = pair.bias
    return Matched(matched, layers, unmatched)


@dataclass(slots=True)
class _Extras:
    """A layer's tensors besides its two matrices."""

    alpha: Tensor | None = None
    magnitude: Tensor | None = None


def _split(file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, _Extras]]:
    """The matrices alone, and each layer's extras by the identity of its first matrix.

    diffusers drops magnitudes, and misreads alphas of text encoders that differ from layer to layer. It
    renames layers but keeps the tensor objects, which therefore identify the layers.
    """
    lora = {
        name: tensor
        for name, tensor in file.items()
        if not name.endswith(".alpha") and not DORA_MAGNITUDE.search(name)
    }
    firsts = {_FIRST.sub("", name): tensor for name, tensor in lora.items() if _FIRST.search(name)}
    extras: dict[int, _Extras] = {}
    for name in file.keys() - lora.keys():
        layer = DORA_MAGNITUDE.sub("", name.removesuffix(".alpha"))
        own = extras.setdefault(id(firsts[layer]), _Extras())
        if name.endswith(".alpha"):
            own.alpha = file[name]
        else:
            own.magnitude = file[name]
    return lora, extras


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two matrices of a layer: ``first`` reads the layer's input, ``second`` writes its output."""

    first: Tensor
    second: Tensor
    bias: Tensor | None


def _pairs(part: str, tensors: Mapping[str, Tensor], network: Any) -> dict[str, _Pair]:
    """The layers of one network by name, each with its two matrices."""
    own = {name.removeprefix(f"{part}."): name for name in tensors if name.startswith(f"{part}.")}
    if not own:
        return {}
    named = convert_unet_state_dict_to_peft(own) if part == "unet" else _text_names(own)
    if not hasattr(network, "text_model"):
        named = {name.removeprefix("text_model."): came for name, came in named.items()}
    found: dict[str, _Pair] = {}
    for name, came in named.items():
        layer, is_first, _ = name.partition(".lora_A.")
        if is_first:
            bias = named.get(f"{layer}.lora_B.bias")
            second = tensors[named[f"{layer}.lora_B.weight"]]
            found[layer] = _Pair(tensors[came], second, None if bias is None else tensors[bias])
    return found


def _text_names(names: Mapping[str, str]) -> Mapping[str, str]:
    """PEFT's names for the text encoders' layers, from either of diffusers' own namings.

    diffusers guesses which of the two a file has, and guesses wrong where layers are few.
    """
    for naming in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
        names = convert_state_dict_to_peft(names, original_type=naming)
    return names


def _submodule(network: Any, name: str) -> Any:
    """A network's own layer, without the LoRAs that are on it; None where there is no such layer."""
    try:
        module = network.get_submodule(name)
    except AttributeError:
        return None
    return getattr(module, "base_layer", module)


def _shaped(pair: _Pair, weight: Tensor, extras: _Extras) -> list[Tensor]:
    """Both matrices and the magnitude, if there is one, in the shapes that PEFT expects.

    Some files store a convolution's kernels as matrices, or matrices as kernels of one pixel.
    """
    rank, ones = pair.first.shape[0], (1,) * (weight.ndim - 2)
    first = pair.first.reshape(rank, *weight.shape[1:])
    second = pair.second.reshape(weight.shape[0], rank, *ones)
    if extras.alpha is not None and float(extras.alpha) != rank:
        second = (second.float() * (float(extras.alpha) / rank)).to(second.dtype)
    if extras.magnitude is None:
        return [first, second]
    return [first, second, extras.magnitude.reshape((1, -1, *ones) if ones else (-1,))]


def _fits(layer: Any, pair: _Pair) -> bool:
    """Whether the matrices have the shapes that a layer of a network needs."""
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
        return False
    rank = pair.first.shape[0]
    return (
        pair.first.numel() == rank * layer.weight[0].numel()
        and pair.second.numel() == rank * layer.weight.shape[0]
    )
