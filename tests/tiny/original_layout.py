"""Turn checkpoints and ControlNets of diffusers' layout into one file with the original releases' names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}
_OPEN_CLIP = {
    "text_model.": "",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
}


def write_single_file(pipeline: Any, path: Path) -> None:
    """Write UNet, VAE and text encoders of an SD1.5 or SDXL pipeline, as a community checkpoint has them."""
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in _unet(pipeline.unet).items()}
    levels = len(pipeline.vae.config.block_out_channels)
    for key, tensor in pipeline.vae.state_dict().items():
        name = _vae_key(key, levels)
        # Linear layers of the attention were 1x1 convolutions.
        is_matrix = ".attn_1." in name and tensor.ndim == 2
        tensors["first_stage_model." + name] = tensor[:, :, None, None] if is_matrix else tensor
    second = getattr(pipeline, "text_encoder_2", None)
    place = "cond_stage_model" if second is None else "conditioner.embedders.0"
    for key, tensor in pipeline.text_encoder.state_dict().items():
        tensors[f"{place}.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    if second is not None:
        open_clip = _open_clip(second.state_dict())
        tensors |= {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in open_clip.items()}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)


def write_controlnet(network: Any, path: Path, prefix: str = "control_model.") -> None:
    """Write a ControlNet as its authors did."""
    save_file({prefix + key: tensor.contiguous() for key, tensor in _unet(network).items()}, path)


def _unet(network: Any) -> dict[str, Tensor]:
    state = network.state_dict()
    # A level going up without attention has its upsampler directly after the resnet.
    attentive = {int(level) for level in re.findall(r"\bup_blocks\.(\d+)\.attentions", " ".join(state))}
    layers = network.config.layers_per_block
    return {unet_key(key, layers, attentive): tensor for key, tensor in state.items()}


def unet_key(key: str, layers: int, attentive: set[int]) -> str:
    """The original name of a UNet's tensor; ``attentive``: its levels going up that have attentions."""
    for old, new in _UNET.items():
        if key.startswith(f"{old}."):
            return _renamed(new + key[len(old) :], ".resnets" in old, _RESNET)
    if match := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(.*)", key):
        return f"zero_convs.{match[1]}.0.{match[2]}"
    if match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)\.(.*)", key):
        return f"input_hint_block.{2 * int(match[1]) + 2}.{match[2]}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
    assert match, key
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if side == "down":
        block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index)
        place = {"resnets": "0", "attentions": "1", "downsamplers": "0"}[kind]
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        return _renamed(f"input_blocks.{block}.{place}.{rest}", kind == "resnets", _RESNET)
    block = level * (layers + 1) + (layers if kind == "upsamplers" else index)
    upsampler = "2" if level in attentive else "1"
    place = {"resnets": "0", "attentions": "1", "upsamplers": upsampler}[kind]
    return _renamed(f"output_blocks.{block}.{place}.{rest}", kind == "resnets", _RESNET)


def _open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one matrix; the projection the other way round."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for old, new in _OPEN_CLIP.items():
            key = key.replace(old, new)
        renamed[key] = tensor.T if key == "text_projection" else tensor
    for kind in ("weight", "bias"):
        for key in [key for key in renamed if key.endswith(f"attn.q_proj.{kind}")]:
            parts = [renamed.pop(key.replace("q_proj", name)) for name in ("q_proj", "k_proj", "v_proj")]
            renamed[key.replace(f"q_proj.{kind}", f"in_proj_{kind}")] = torch.cat(parts)
    return renamed


def _vae_key(key: str, levels: int) -> str:
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key
    )
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
    key = key.replace("conv_shortcut", "nin_shortcut")
    return _renamed(key, ".attn_1." in key, _ATTENTION)


def _renamed(key: str, applies: bool, names: dict[str, str]) -> str:
    for old, new in names.items() if applies else ():
        key = key.replace(f".{old}.", f".{new}.")
    return key
