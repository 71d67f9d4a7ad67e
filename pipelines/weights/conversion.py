"""PyTorch pickles of bare tensors into safetensors, without running anything that is in them."""
# pyright: basic
# torch's functions are only partly typed.

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


class NotTensors(Exception):
    """The file is no state dictionary, or holds objects other than tensors."""


def to_safetensors(pickled: Path, target: Path) -> None:
    """Write the tensors of a ``.bin`` as safetensors; ``target`` appears only when it is complete.

    Raises:
        NotTensors: weights_only refuses the file, or it holds something else than named tensors.
    """
    state = demand_tensors(pickled)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise NotTensors("not a dictionary of tensors")
    # A clone each: tied weights share memory, which the format refuses.
    tensors = {str(name): tensor.detach().clone().contiguous() for name, tensor in state.items()}
    aside = target.with_name(f".{target.name}")
    save_file(tensors, aside, metadata={"format": "pt"})
    aside.replace(target)


def demand_tensors(pickled: Path) -> Any:
    """Open a pickle the safe way, and hand out what is in it.

    Raises:
        NotTensors: weights_only refuses it.
    """
    try:
        return torch.load(pickled, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise NotTensors(str(error)) from error


def rename_shards(index: Path, target: Path, rename: Callable[[str], str]) -> None:
    """Write a shard index whose files carry the names of the converted shards."""
    content = json.loads(index.read_text())
    content["weight_map"] = {tensor: rename(file) for tensor, file in content["weight_map"].items()}
    target.write_text(json.dumps(content, indent=1))
