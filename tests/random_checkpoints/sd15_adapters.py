"""Adapters for the small SD1.5 checkpoint, strong enough to be seen: LoRAs, a textual inversion, a VAE."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from pipelines.demo.checkpoints.parts import fill

RANK = 4
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def build(folder: Path, pipeline: StableDiffusionPipeline, vae: AutoencoderKL) -> None:
    """Write ``sd15_adapters`` under ``folder``.

    Args:
        pipeline: the checkpoint that they fit.
        vae: the other VAE.
    """
    target = folder / "sd15_adapters"
    target.mkdir()
    save_file(peft_lora(pipeline, seed=21), target / "more_details.safetensors")
    save_file(kohya_lora(pipeline, seed=22), target / "animie.safetensors")
    width = pipeline.text_encoder.config.hidden_size
    save_file({"emb_params": _matrix(2, width, seed=23)}, target / "night_scene.safetensors")
    vae.save_pretrained(target / "vae")


def peft_lora(pipeline: StableDiffusionPipeline, seed: int) -> dict[str, Tensor]:
    """In the layout that diffusers writes, for the UNet and the text encoder."""
    tensors: dict[str, Tensor] = {}
    for part in ("unet", "text_encoder"):
        for index, (name, linear) in enumerate(_targets(getattr(pipeline, part))):
            down, up = _matrices(linear, 1000 * seed + index)
            tensors[f"{part}.{name}.lora_A.weight"] = down
            tensors[f"{part}.{name}.lora_B.weight"] = up
    return tensors


def kohya_lora(pipeline: StableDiffusionPipeline, seed: int) -> dict[str, Tensor]:
    """In the layout of kohya-ss' scripts, which most published LoRAs have, with an alpha of half the rank."""
    tensors: dict[str, Tensor] = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        for index, (name, linear) in enumerate(_targets(getattr(pipeline, part))):
            down, up = _matrices(linear, 1000 * seed + index)
            key = prefix + name.replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = down
            tensors[f"{key}.lora_up.weight"] = up
            tensors[f"{key}.alpha"] = torch.tensor(RANK / 2)
    return tensors


def _targets(network: torch.nn.Module) -> list[tuple[str, torch.nn.Linear]]:
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(_TARGETS)
    ]


def _matrices(linear: torch.nn.Linear, seed: int) -> tuple[Tensor, Tensor]:
    return _matrix(RANK, linear.in_features, seed), _matrix(linear.out_features, RANK, seed + 500)


def _matrix(rows: int, columns: int, seed: int) -> Tensor:
    linear = torch.nn.Linear(columns, rows, bias=False)
    fill(linear, seed)
    return linear.weight.detach().clone()
