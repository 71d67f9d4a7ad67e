"""Turn a diffusers-layout SD1.5 checkpoint into one file with the key names of the original release."""

from __future__ import annotations

import re
from pathlib import Path

from diffusers import StableDiffusionPipeline
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


def write_single_file(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """Write UNet, VAE and text encoder, as a community checkpoint has them."""
    unet = pipeline.unet
    tensors: dict[str, Tensor] = {}
    for key, tensor in unet.state_dict().items():
        tensors["model.diffusion_model." + _unet_key(key, unet.config.layers_per_block)] = tensor
    levels = len(pipeline.vae.config.block_out_channels)
    for key, tensor in pipeline.vae.state_dict().items():
        name = _vae_key(key, levels)
        # Linear layers of the attention were 1x1 convolutions.
        is_matrix = ".attn_1." in name and tensor.ndim == 2
        tensors["first_stage_model." + name] = tensor[:, :, None, None] if is_matrix else tensor
    for key, tensor in pipeline.text_encoder.state_dict().items():
        name = "text_model." + key.removeprefix("text_model.")
        tensors["cond_stage_model.transformer." + name] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)


def _unet_key(key: str, layers: int) -> str:
    fixed = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for old, new in fixed.items():
        if key.startswith(f"{old}."):
            return _renamed(new + key[len(old) :], ".resnets" in old, _RESNET)
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
    assert match, key
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if side == "down":
        block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index)
        place = {"resnets": "0", "attentions": "1", "downsamplers": "0"}[kind]
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        return _renamed(f"input_blocks.{block}.{place}.{rest}", kind == "resnets", _RESNET)
    block = level * (layers + 1) + (layers if kind == "upsamplers" else index)
    # The first level of SD1.5 going up has no attention, so its upsampler comes directly after the resnet.
    place = {"resnets": "0", "attentions": "1", "upsamplers": "1" if level == 0 else "2"}[kind]
    return _renamed(f"output_blocks.{block}.{place}.{rest}", kind == "resnets", _RESNET)


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
