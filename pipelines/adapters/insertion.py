"""Put the layers of a LoRA on a network, as PEFT's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

from pipelines.adapters.lora_layers import LoraLayer


def insert(network: Any, layers: Mapping[str, LoraLayer], name: str) -> list[str]:
    """Add layers to a network, switched off; nothing of the network's own is changed.

    A configuration of PEFT is for layers of one sort, so that plain LoRAs, those with a bias and DoRAs become
    adapters of their own.

    Args:
        layers: module of the network -> layer.
        name: the name of the adapters, or its beginning.
    Returns:
        The names of the adapters.
    """
    sorts: dict[tuple[bool, bool], dict[str, LoraLayer]] = {}
    for module, layer in layers.items():
        dora = layer.magnitude is not None
        sorts.setdefault((dora, not dora and layer.bias is not None), {})[module] = layer
    names: list[str] = []
    for (dora, bias), own in sorts.items():
        names.append(f"{name}{'_dora' if dora else ''}{'_bias' if bias else ''}")
        _insert(network, own, names[-1], dora=dora, bias=bias)
    return names


def _insert(network: Any, layers: Mapping[str, LoraLayer], name: str, *, dora: bool, bias: bool) -> None:
    # PEFT finds the modules by the keys alone. Ranks are those of the matrices that are put in below.
    keys = {f"{module}.lora_{end}.weight": layer.first for module, layer in layers.items() for end in "AB"}
    config = LoraConfig(r=1, lora_alpha=1, target_modules=list(layers), use_dora=dora, lora_bias=bias)
    inject_adapter_in_model(config, network, name, low_cpu_mem_usage=True, state_dict=keys)
    for module, layer in layers.items():
        on = network.get_submodule(module)
        on.r[name] = on.lora_alpha[name] = layer.rank
        on.lora_A[name].weight = _frozen(layer.first)
        on.lora_B[name].weight = _frozen(layer.second)
        if bias and layer.bias is not None:
            on.lora_B[name].bias = _frozen(layer.bias)
        if dora and layer.magnitude is not None:
            on.lora_magnitude_vector[name].weight = _frozen(layer.magnitude)
    network._hf_peft_config_loaded = True


def _frozen(tensor: torch.Tensor) -> torch.nn.Parameter:
    # In memory of its own: a mapped file may lie anywhere, and its place decides the last bit of a product.
    return torch.nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), requires_grad=False)
