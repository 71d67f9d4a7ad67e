"""Open VAEs and ControlNets that are one file, by the layouts by which they are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel

from pipelines.checkpoints.dummies import skeleton_of
from pipelines.checkpoints.single_file import fill, read_placed
from pipelines.weights.header import Unrecognised, read_header
from pipelines.weights.layouts.networks import controlnet_network, vae_network


def vae_of_file(path: Path, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    """A VAE on the CPU.

    Args:
        config: its configuration in diffusers' words, which a file has not.
    Raises:
        Unrecognised: the file is no VAE of that configuration.
    """
    path = _only_file(path)
    placed = vae_network(read_header(path), config)
    return fill(skeleton_of(AutoencoderKL, dict(config)), read_placed(path, placed, dtype))


def controlnet_of_file(path: Path, unet: Any) -> ControlNetModel:
    """A ControlNet in the type of the network that it steers, on the CPU.

    Raises:
        Unrecognised: the file is no ControlNet for that network.
    """
    path = _only_file(path)
    placed, found = controlnet_network(read_header(path), dict(unet.config))
    with torch.device("meta"):
        like: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    changes = {name: found[name] for name in like.config if name in found}
    network = skeleton_of(ControlNetModel, {**like.config, **changes})
    return fill(network, read_placed(path, placed, unet.dtype))


def _only_file(path: Path) -> Path:
    """The file, or the only one in a folder."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise Unrecognised(f"it has {len(found)} .safetensors files instead of one")
    return found[0]
