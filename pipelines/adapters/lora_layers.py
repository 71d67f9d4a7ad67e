"""Which layers of a pipeline's networks the layers of a LoRA belong to."""

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

NETWORKS = ("unet", "text_encoder", "text_encoder_2")

_FIRST = re.compile(r"\.lora(_down|_A|\.down)\.weight$")
_MAGNITUDE = re.compile(r"\.(dora_scale|lora_magnitude_vector(\.weight)?)$")
"""How files end the names of what DoRA (Liu et al. 2024) learns beside a LoRA: the length of each row."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What of a LoRA fits a pipeline.

    Attributes:
        tensors: of the layers that fit, as diffusers' loaders take them; alphas are in the second matrices.
        layers: how many there are in all; missing: of how many the pipeline has no such layer, or one of
            another shape.
    """

    tensors: Mapping[str, Tensor]
    layers: int
    missing: int


def match_layers(pipeline: Any, file: Mapping[str, Tensor]) -> Matched:
    """Find a place for each layer.

    Args:
        file: a LoRA or DoRA in any naming that diffusers reads.
    Raises:
        ValueError, KeyError: the naming is none of them, or a layer is not whole.
    """
    lora, beside = _apart(file)
    tensors, _ = pipeline.lora_state_dict(lora, unet_config=pipeline.unet.config)
    placed: dict[str, Tensor] = {}
    homeless = {name for name in tensors if not name.startswith(tuple(f"{part}." for part in NETWORKS))}
    layers = missing = len({name.partition(".lora")[0] for name in homeless})
    for part in NETWORKS:
        network = getattr(pipeline, part, None)
        pairs = _pairs(part, tensors, network)
        fitting = {layer: pair for layer, pair in pairs.items() if _fits(_submodule(network, layer), pair)}
        layers += len(pairs)
        missing += len(pairs) - len(fitting)
        # Names that diffusers reads right whichever layers there are.
        ends = ("lora_A", "lora_B") if part == "unet" else ("lora_linear_layer.down", "lora_linear_layer.up")
        for layer, pair in fitting.items():
            shaped = _shaped(pair, _submodule(network, layer).weight, beside.get(id(pair.first), _Beside()))
            for end, tensor in zip((*ends, "lora_magnitude_vector"), shaped, strict=False):
                placed[f"{part}.{layer}.{end}.weight"] = tensor
            if pair.bias is not None:
                placed[f"{part}.{layer}.{ends[1]}.bias"] = pair.bias
    return Matched(placed, layers, missing)


@dataclass(slots=True)
class _Beside:
    """What a file has of a layer besides its two matrices."""

    alpha: Tensor | None = None
    magnitude: Tensor | None = None


def _apart(file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, _Beside]]:
    """The matrices alone, and what is beside them by the identity of the first one.

    diffusers drops magnitudes, and misreads alphas of text encoders that differ from layer to layer. It
    gives layers other names, but hands the same tensors on.
    """
    lora = {
        name: it for name, it in file.items() if not name.endswith(".alpha") and not _MAGNITUDE.search(name)
    }
    firsts = {_FIRST.sub("", name): tensor for name, tensor in lora.items() if _FIRST.search(name)}
    beside: dict[int, _Beside] = {}
    for name in file.keys() - lora.keys():
        layer = _MAGNITUDE.sub("", name.removesuffix(".alpha"))
        own = beside.setdefault(id(firsts[layer]), _Beside())
        if name.endswith(".alpha"):
            own.alpha = file[name]
        else:
            own.magnitude = file[name]
    return lora, beside


@dataclass(frozen=True, slots=True)
class _Pair:
    """``first`` reads the layer's input, ``second`` writes its output."""

    first: Tensor
    second: Tensor
    bias: Tensor | None


def _pairs(part: str, tensors: Mapping[str, Tensor], network: Any) -> dict[str, _Pair]:
    """Layer of the network -> its two matrices."""
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
    """From both of diffusers' own namings; it guesses which it is, and guesses wrong where layers are few."""
    for naming in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
        names = convert_state_dict_to_peft(names, original_type=naming)
    return names


def _submodule(network: Any, name: str) -> Any:
    """The layer itself, also when it has LoRAs already; None: there is none."""
    try:
        module = network.get_submodule(name)
    except AttributeError:
        return None
    return getattr(module, "base_layer", module)


def _shaped(pair: _Pair, weight: Tensor, beside: _Beside) -> list[Tensor]:
    """Both matrices and the magnitude, if there is one, in the shapes that PEFT expects.

    Files have matrices for convolutions too, and kernels of one pixel for matrices.
    """
    rank, ones = pair.first.shape[0], (1,) * (weight.ndim - 2)
    first = pair.first.reshape(rank, *weight.shape[1:])
    second = pair.second.reshape(weight.shape[0], rank, *ones)
    if beside.alpha is not None and float(beside.alpha) != rank:
        second = (second.float() * (float(beside.alpha) / rank)).to(second.dtype)
    if beside.magnitude is None:
        return [first, second]
    return [first, second, beside.magnitude.reshape((1, -1, *ones) if ones else (-1,))]


def _fits(layer: Any, pair: _Pair) -> bool:
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
        return False
    rank = pair.first.shape[0]
    return (
        pair.first.numel() == rank * layer.weight[0].numel()
        and pair.second.numel() == rank * layer.weight.shape[0]
    )
