"""Every way in which programs name the layers of a LoRA: a row each, to walk through load and drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.weights.lora_names import DOTTED_PREFIXES, FLAT_PREFIXES, WRAPPERS
from tests.tiny.lycoris_files import hadamard, kronecker, numbers
from tests.tiny.original_layout import unet_key

RANK = 2
TARGETS = ("to_q", "to_k", "to_out.0", "proj_in", "resnets.0.conv1", "fc1", "q_proj", "out_proj")
Parts = dict[str, Tensor]
"""A layer's tensors by kohya's ends of names."""

PEFT_ENDS = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
ADAPTER_ENDS = {"lora_down.weight": "lora_A.default.weight", "lora_up.weight": "lora_B.default.weight"}
DIFFUSERS_ENDS = {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight"}
LINEAR_ENDS = {
    "lora_down.weight": "lora_linear_layer.down.weight",
    "lora_up.weight": "lora_linear_layer.up.weight",
}


@dataclass(frozen=True)
class Naming:
    """One way of naming.

    Attributes:
        network: the network whose layers a file of this naming has.
        name: the name of a layer from its module's name in diffusers.
        ends: the ends of names where they are not kohya's.
        whole: whether the file says its alphas.
    """

    network: str
    name: Callable[[str], str]
    ends: Mapping[str, str] | None = None
    whole: bool = True


def original(module: str) -> str:
    """The name of a module of the small UNet in the original release; it has one resnet in each block."""
    return unet_key(f"{module}.weight", 1, {0, 1}).removesuffix(".weight")


def flat(name: str) -> str:
    return name.replace(".", "_")


def processor(module: str) -> str:
    """The name of a projection in the first releases of diffusers, in which processors had the LoRAs."""
    head, dot, last = module.removesuffix(".0").rpartition(".")
    return f"{head}{dot}processor.{last}_lora" if last.startswith("to_") else module


def namings() -> dict[str, Naming]:
    """All rows; the walk demands that every prefix that names are read with occurs in one."""
    rows: dict[str, Naming] = {}
    for prefix, network in FLAT_PREFIXES.items():
        rows[f"{prefix}"] = Naming(network, lambda module, p=prefix: p + flat(module))
    for prefix, network in DOTTED_PREFIXES.items():
        rows[f"{prefix}"] = Naming(network, lambda module, p=prefix: p + module, PEFT_ENDS)
        rows[f"{prefix}, kohya's ends"] = Naming(network, lambda module, p=prefix: p + module)
    for wrapper in WRAPPERS:
        rows[f"{wrapper}unet."] = Naming(
            "unet",
            lambda module, w=wrapper: f"{w}unet.{module}",
            PEFT_ENDS,
            whole=wrapper != "base_model.model.",
        )
    for prefix in ("", "unet.", "diffusion_model.", "model.diffusion_model."):
        rows[f"{prefix}original"] = Naming(
            "unet", lambda module, p=prefix: p + original(module), PEFT_ENDS, whole=bool(prefix)
        )
    return rows | {
        "lora_unet_, original": Naming("unet", lambda module: f"lora_unet_{flat(original(module))}"),
        "lycoris_": Naming("unet", lambda module: f"lycoris_{flat(module)}"),
        "no prefix": Naming("unet", lambda module: module, PEFT_ENDS, whole=False),
        "PEFT's own": Naming("unet", lambda module: f"base_model.model.{module}", PEFT_ENDS, whole=False),
        "PEFT's own, text": Naming(
            "text_encoder", lambda module: f"base_model.model.text_model.{module}", PEFT_ENDS, whole=False
        ),
        "PEFT's with the adapter": Naming(
            "unet", lambda module: f"base_model.model.{module}", ADAPTER_ENDS, whole=False
        ),
        "in a network": Naming(
            "unet", lambda module: f"unet.base_model.model.{module}", PEFT_ENDS, whole=False
        ),
        "diffusers": Naming("unet", lambda module: f"unet.{module}", DIFFUSERS_ENDS),
        "diffusers, text": Naming(
            "text_encoder", lambda module: f"text_encoder.text_model.{module}", LINEAR_ENDS
        ),
        "cond_stage_model.transformer.": Naming(
            "text_encoder", lambda module: f"cond_stage_model.transformer.text_model.{module}", PEFT_ENDS
        ),
        "OpenCLIP": Naming("text_encoder_2", open_clip, PEFT_ENDS),
    }


def open_clip(module: str) -> str:
    """The name of a module of SDXL's second text encoder in the original release."""
    renamed = {
        "encoder.layers.": "transformer.resblocks.",
        "self_attn.out": "attn.out",
        "mlp.fc1": "mlp.c_fc",
    }
    for old, new in renamed.items():
        module = module.replace(old, new)
    return f"conditioner.embedders.1.model.{module}"


def modules(network: Any) -> dict[str, Any]:
    """The layers that the files change: module -> layer, without the level that some releases put before."""
    return {
        name.removeprefix("text_model."): layer
        for name, layer in network.named_modules()
        if name.endswith(TARGETS)
    }


def parts(kind: str, layer: Any, seed: int) -> Parts:
    """The tensors of one layer, strong enough to be seen."""
    weight = layer.weight
    out, into = weight.shape[0], weight[0].numel()
    if kind in ("loha", "lokr"):
        made = (hadamard if kind == "loha" else kronecker)(out, into, RANK, seed)
        return {part: 1.5 * tensor for part, tensor in made.items()}
    up, down = numbers(out, RANK, seed=seed), numbers(RANK, into, seed=seed + 1)
    made = {"lora_up.weight": up, "lora_down.weight": down.reshape(RANK, *weight.shape[1:])}
    if kind == "locon" and weight.ndim == 4:
        made["lora_down.weight"] = numbers(RANK, weight.shape[1], 1, 1, seed=seed + 1)
        made["lora_mid.weight"] = numbers(RANK, RANK, *weight.shape[2:], seed=seed + 2)
    if kind == "dora":
        made["dora_scale"] = (0.5 + torch.rand(out, generator=torch.Generator().manual_seed(seed))).reshape(
            -1, *(1,) * (weight.ndim - 1)
        )
    return made


def file(naming: Naming, network: Any, kind: str = "lora", alpha: float | None = None) -> dict[str, Tensor]:
    """A whole file of a naming."""
    tensors: dict[str, Tensor] = {}
    for at, (module, layer) in enumerate(modules(network).items()):
        made = parts(kind, layer, seed=10 * at)
        if alpha is not None:
            made["alpha"] = torch.tensor(alpha)
        for end, tensor in made.items():
            named = (naming.ends or {}).get(end, end)
            tensors[f"{naming.name(module)}.{named}"] = tensor.contiguous()
    return tensors
