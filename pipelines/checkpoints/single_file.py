"""Open checkpoints that are one file, by the layouts by which they are recognised."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pipelines.checkpoints.dtypes import Dtypes, of_name
from pipelines.checkpoints.dummies import skeleton_of
from pipelines.checkpoints.tokenizers import clip_tokenizer
from pipelines.weights.header import read_header
from pipelines.weights.layouts.checkpoint import checkpoint_networks
from pipelines.weights.layouts.numbers import scales
from pipelines.weights.layouts.placing import Placed, Taken
from pipelines.weights.prediction import scheduler_changes

_CLASSES: Mapping[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
"""The class of each network of a checkpoint."""

_EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
_THIRDS = ("first third", "second third", "last third")


def components(path: Path, folder: Path, dtype: Dtypes, without: Collection[str] = ()) -> dict[str, Any]:
    """The networks, tokenizers and noise scheduler of a checkpoint that is one file, on the CPU.

    Args:
        folder: its configuration, in diffusers' layout.
        without: components that are not wanted.
    Raises:
        Unrecognised: the file is no checkpoint of this configuration.
    """
    header = read_header(path)
    placed = checkpoint_networks(header, folder).placed
    wanted = [name for name in placed if name not in without]
    made = {name: network(path, folder, of_name(dtype, name), name) for name in wanted}
    for tokenizer in folder.glob("tokenizer*"):
        if tokenizer.name not in without:
            made[tokenizer.name] = _tokenizer(tokenizer)
    config = _json(folder / "scheduler/scheduler_config.json")
    cls: Any = getattr(diffusers, config["_class_name"])
    # What its class does not take stays in its configuration, for the schedulers that callers name.
    made["scheduler"] = cls.from_config({**config, **scheduler_changes(header)})
    return made


def network(path: Path, folder: Path, dtype: torch.dtype, name: str) -> Any:
    """One network of a checkpoint that is one file, on the CPU.

    Args, Raises: as for `components`.
    """
    networks = checkpoint_networks(read_header(path), folder)
    values = dict(networks.unet_config) if name == "unet" else _json(folder / name / "config.json")
    return fill(skeleton_of(_CLASSES[name], values), read_placed(path, networks.placed[name], dtype))


def fill(network: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A network whose parameters are these tensors; it was built on the meta device."""
    names = set(network.state_dict())
    # transformers has put the same tensors below text_model. in some versions and classes.
    renamed = {name if name in names else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    network.load_state_dict(renamed, assign=True)
    return network.eval()


def read_placed(path: Path, placed: Placed, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that a network takes from a file, by the network's own names."""
    with safe_open(path, framework="pt", device="cpu") as file:
        names = set(file.keys())
        return {name: _read(file, names, taken, dtype) for name, taken in placed.items()}


def _read(file: Any, names: Collection[str], taken: Taken, dtype: torch.dtype) -> Tensor:
    tensor: Tensor = file.get_tensor(taken.key)
    if tensor.dtype in _EIGHT_BITS:
        tensor = tensor.to(torch.float32)
        for scale in scales(taken.key):
            if scale in names:
                tensor = tensor * file.get_tensor(scale).to(torch.float32)
    if taken.change == "transposed":
        tensor = tensor.T
    elif taken.change in _THIRDS:
        tensor = tensor.chunk(3)[_THIRDS.index(taken.change)]
    # A copy: a tensor in the mapping of a file lies at any address, and there kernels round otherwise.
    return tensor.reshape(taken.shape).to(dtype, copy=True, memory_format=torch.contiguous_format)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _tokenizer(folder: Path) -> Any:
    if (folder / "tokenizer.json").exists() or (folder / "vocab.json").exists():
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return clip_tokenizer(folder)
