"""A LoRA's layers -> the layers of a pipeline's networks that they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.weights.lora_names import NETWORKS, read_names


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The matrices that change one layer of a network, in the shapes, type and place that PEFT expects.

    Attributes:
        first: reads the layer's input.
        second: writes its output; multiplied by alpha / rank.
        bias: is added to the output, where the file has one; multiplied alike.
        magnitude: of a DoRA, the learnt length of each row of the weight.
    """

    first: Tensor
    second: Tensor
    bias: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.first.shape[0]


@dataclass(frozen=True, slots=True)
class Matched:
    """The part of a LoRA that fits a pipeline.

    Attributes:
        networks: the layers that fit: network -> module -> layer.
        layers: the number of the LoRA's layers.
        unmatched: the number of those for which the pipeline has no layer, or one of another shape.
    """

    networks: Mapping[str, Mapping[str, LoraLayer]]
    layers: int
    unmatched: int


class Overflow(ValueError):
    """A LoRA times its alpha has numbers beyond the number format of a network."""


def match_layers(pipeline: Any, file: Mapping[str, Tensor]) -> Matched:
    """Match each layer of a LoRA with the layer that it changes.

    Args:
        file: LoRAs and DoRAs alone, in any naming.
    Raises:
        Overflow: see there.
    """
    found = read_names(file, pipeline.unet.config.layers_per_block)
    networks: dict[str, dict[str, LoraLayer]] = {network: {} for network in NETWORKS}
    for named in found.layers.values():
        network = getattr(pipeline, named.network, None) if named.network else None
        name, layer = _submodule(network, named.module)
        own = {part: file[key] for part, key in named.parts.items()}
        if _fits(layer, own):
            networks[named.network].setdefault(name, _shaped(own, layer.weight))
    matched = sum(len(layers) for layers in networks.values())
    return Matched(networks, len(found.layers), len(found.layers) - matched)


def _submodule(network: Any, module: str) -> tuple[str, Any]:
    """A network's own layer, without the LoRAs that are on it, and its name; None where there is none.

    Some releases of transformers have the layers of text encoders one level deeper.
    """
    for name in (module, f"text_model.{module}"):
        try:
            layer = network.get_submodule(name)
        except AttributeError:
            continue
        return name, getattr(layer, "base_layer", layer)
    return module, None


def _shaped(parts: Mapping[str, Tensor], weight: Tensor) -> LoraLayer:
    """All parts in the shapes that PEFT expects.

    Some files store a convolution's kernels as matrices, or matrices as kernels of one pixel.
    """
    down, up = parts["down"], parts["up"]
    rank, ones = down.shape[0], (1,) * (weight.ndim - 2)
    strength = float(parts["alpha"].flatten()[0]) / rank if "alpha" in parts else 1.0
    # A quantized matrix has these, but nothing can be made like it.
    place, dtype = weight.device, weight.dtype
    magnitude = parts.get("magnitude")
    bias = parts.get("up.bias")
    layer = LoraLayer(
        first=down.reshape(rank, *weight.shape[1:]).to(place, dtype),
        second=_times(up.reshape(weight.shape[0], rank, *ones), strength).to(place, dtype),
        bias=None if bias is None else _times(bias.flatten(), strength).to(place, dtype),
        magnitude=None
        if magnitude is None
        else magnitude.reshape((1, -1, *ones) if ones else (-1,)).to(place, dtype),
    )
    if weight.dtype == torch.float16 and not (layer.first.isfinite().all() and layer.second.isfinite().all()):
        raise Overflow("numbers beyond half precision")
    return layer


def _times(tensor: Tensor, strength: float) -> Tensor:
    return tensor if strength == 1.0 else tensor.float() * strength


def _fits(layer: Any, parts: Mapping[str, Tensor]) -> bool:
    """Whether all parts have the shapes that a layer of a network needs."""
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
        return False
    rank, out = parts["down"].shape[0], layer.weight.shape[0]
    own = (parts[part] for part in ("magnitude", "up.bias") if part in parts)
    return (
        rank > 0
        and parts["down"].numel() == rank * layer.weight.shape[1:].numel()
        and parts["up"].numel() == rank * out
        and all(tensor.numel() == out for tensor in own)
    )
