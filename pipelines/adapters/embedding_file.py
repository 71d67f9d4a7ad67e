"""Read a textual inversion, whatever wrote it: the vectors of its word for each text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from pipelines.weights.conversion import NotTensors, demand_tensors
from pipelines.weights.embedding_names import vectors_by_encoder
from pipelines.weights.formats import PICKLES
from pipelines.weights.header import Unrecognised


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """The contents of a textual inversion. The tensors are shared: never change them in place.

    Attributes:
        vectors: ``clip_l`` and ``clip_g`` of SDXL, or ``only`` -> (n, width).
    """

    vectors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.vectors.values())


def read_embedding(path: Path) -> EmbeddingFile:
    """Read a textual inversion from a file, or from the only one in a folder.

    Raises:
        Unrecognised: this server cannot draw with it; the error says why.
        OSError, SafetensorError, ValueError: the file cannot be read.
    """
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix in (".safetensors", *PICKLES))
        if len(found) != 1:
            raise ValueError(f"{len(found)} files of tensors in {path}, one is expected")
        path = found[0]
    return EmbeddingFile(vectors_of(_tensors(path)))


def vectors_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vectors for each text encoder, as `EmbeddingFile` has them.

    Raises:
        Unrecognised: this server cannot draw with them; the error says why.
    """
    names = vectors_by_encoder({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    vectors = {encoder: torch.atleast_2d(tensors[name]) for encoder, name in names.items()}
    for encoder, rows in vectors.items():
        if rows.ndim != 2 or not rows.numel() or not rows.is_floating_point():
            raise Unrecognised(f"{names[encoder]} holds no vectors")
        if not rows.float().isfinite().all():
            raise Unrecognised(f"its tensor {names[encoder]} has numbers that are infinite or none (NaN)")
    return vectors


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix not in PICKLES:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in cast("list[str]", list(file.keys()))}
    try:
        return dict(_flat(demand_tensors(path)))
    except NotTensors as error:
        raise ValueError(str(error)) from error


def _flat(opened: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor of a pickle with its path in the dictionaries of it."""
    if isinstance(opened, Tensor):
        return [(name or "emb_params", opened.detach())]
    if not isinstance(opened, dict):
        return []
    entries = cast("dict[Any, Any]", opened).items()
    return [found for key, value in entries for found in _flat(value, f"{name}.{key}" if name else str(key))]
