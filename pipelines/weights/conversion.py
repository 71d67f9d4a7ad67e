"""Convert PyTorch pickles of bare tensors into safetensors, without running anything that is in them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

from pipelines.weights.atomic import replacing


class NotTensors(Exception):
    """A file that is no state dictionary, or holds objects other than tensors."""


def to_safetensors(pickled: Path, target: Path) -> None:
    """Write the tensors of a ``.bin`` as safetensors; ``target`` appears only when it is complete.

    Raises:
        NotTensors: torch refuses it with ``weights_only``, or it holds something else than named tensors.
    """
    named = _state_dict(demand_tensors(pickled))
    if not all(isinstance(tensor, torch.Tensor) for tensor in named.values()):
        raise NotTensors("not a dictionary of tensors")
    # A clone each: tied weights share memory, which the format refuses.
    tensors = {str(name): tensor.detach().clone().contiguous() for name, tensor in named.items()}
    # One process at a time converts: what a killed one has left here, the next one overwrites.
    with replacing(target, target.with_name(f".{target.name}")) as aside:
        save_file(tensors, aside, metadata={"format": "pt"})


def _state_dict(opened: Any) -> dict[Any, Any]:
    """The dictionary that a file holds, or the ``state_dict`` that a trainer has put into it."""
    if not isinstance(opened, dict):
        raise NotTensors("not a dictionary of tensors")
    outer = cast("dict[Any, Any]", opened)
    inner = outer.get("state_dict")
    return cast("dict[Any, Any]", inner) if isinstance(inner, dict) else outer


def demand_tensors(pickled: Path) -> Any:
    """Open a pickle with ``weights_only``, which runs nothing, and return what is in it.

    Raises:
        NotTensors: torch refuses it.
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
