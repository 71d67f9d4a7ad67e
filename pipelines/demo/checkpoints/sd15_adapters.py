"""Adapters for the small SD1.5 checkpoint, each with one visible effect: LoRAs, an embedding, a VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.parts import load_weights

_SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
"""The matrix from the red, green and blue of a colour, 0 .. 1, to those of its sepia tone, one row for each
(the filter effect ``sepia`` of W3C's Filter Effects Module, section 9.6)."""


def build(folder: Path) -> None:
    """Write ``sd15_adapters`` under ``folder``."""
    target = folder / "sd15_adapters"
    target.mkdir()
    outlined, striped = load_weights("outlined"), load_weights("striped")
    rank = len(striped["conv_in.lora_A.weight"])
    striped |= _unchanged("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", outlined, rank)
    save_file({f"unet.{name}": tensor for name, tensor in striped.items()}, target / "striped.safetensors")
    save_file(_in_kohya_layout(outlined), target / "outlined.safetensors")
    save_file(load_weights("night_scene"), target / "night_scene.safetensors")
    _sepia(target / "vae")


def _unchanged(layer: str, like: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """A layer that reads the text and changes nothing, by which a LoRA of convolutions tells its family."""
    down, up = (like[f"{layer}.lora_{matrix}.weight"] for matrix in "AB")
    return {
        f"{layer}.lora_A.weight": torch.zeros(rank, down.shape[1]),
        f"{layer}.lora_B.weight": torch.zeros(up.shape[0], rank),
    }


def _in_kohya_layout(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of kohya-ss' scripts, which most published LoRAs have, instead of PEFT's."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in lora.items():
        layer, matrix = name.removesuffix(".weight").rsplit(".", 1)
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{key}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = tensor
        if matrix == "lora_A":
            tensors[f"{key}.alpha"] = torch.tensor(float(len(tensor)))
    return tensors


@torch.no_grad()
def _sepia(folder: Path) -> None:
    """Write the checkpoint's VAE with a last convolution that mixes the colours."""
    vae = trained_autoencoder()
    mixed = torch.tensor(_SEPIA)
    last: Any = vae.decoder.conv_out
    last.weight.copy_(torch.einsum("dc,cihw->dihw", mixed, last.weight))
    # Colours are -1 .. 1 here: what is 0 there is -1, and the rows' sums are not 1.
    last.bias.copy_(mixed @ last.bias + mixed.sum(1) - 1)
    vae.save_pretrained(folder)
