"""Pipelines and networks of a folder, opened as ``from_pretrained`` does, but beside a loop that draws."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints import reading
from pipelines.checkpoints.dtypes import Dtypes, of_name
from pipelines.checkpoints.pace import Pace

log = logging.getLogger(__name__)

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.bpe")
"""The files of which a tokenizer has at least one. transformers would make one of two words without them."""


def pipeline(cls: type[Any], folder: Path, dtypes: Dtypes, components: Mapping[str, Any], pace: Pace) -> Any:
    """Open a pipeline of diffusers in the host's memory.

    Args:
        components: replace those of the folder (None: leave out).
    Raises:
        Exception: whatever the libraries raise when files are missing or damaged.
    """
    index = json.loads((folder / "model_index.json").read_text())
    accepted = inspect.signature(cls.__init__).parameters
    built = {name: value for name, value in components.items() if name in accepted}
    for name, value in index.items():
        if name in built or name not in accepted:
            continue
        pace.pause()
        if not isinstance(value, list):
            built[name] = value
        elif value[0] is None:
            built[name] = None
        else:
            built[name] = component(value[0], value[1], folder / name, of_name(dtypes, name), pace)
    return cls(**built)


def component(library: str, class_name: str, folder: Path, dtype: torch.dtype, pace: Pace) -> Any:
    """Open one component that a model_index.json names."""
    known = import_module("diffusers.pipelines")
    module: Any = getattr(known, library) if hasattr(known, library) else import_module(library)
    cls: Any = getattr(module, class_name)
    if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
        return network(cls, folder, dtype, pace)
    if folder.name.startswith("tokenizer"):
        demand_vocabulary(folder)
    return cls.from_pretrained(folder, local_files_only=True)


def network(cls: Any, folder: Path, dtype: torch.dtype, pace: Pace) -> Any:
    """Open a single network of diffusers or transformers in the host's memory."""
    try:
        return reading.network(cls, folder, dtype, pace.pause)
    except reading.NotOneToOne as error:
        log.info("%s of %s is converted, while nothing is drawn: %s", cls.__name__, folder.name, error)
    return pace.alone(
        lambda: cls.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    )


def demand_vocabulary(folder: Path) -> None:
    """Refuse a tokenizer without its words.

    Raises:
        FileNotFoundError: there are none.
    """
    if not any(any(folder.glob(name)) for name in _VOCABULARIES):
        raise FileNotFoundError(f"{folder} has no vocabulary")
