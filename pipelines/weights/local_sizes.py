"""The sizes of networks whose files are on this machine, by their headers. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipelines.weights.header import Unrecognised, read_header

FULL_BYTES = 4
"""The bytes of a number in a file of which nothing but its length is read."""

_PLACES: Mapping[str, tuple[str, ...]] = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
"""The beginnings of the tensors' names of each network in a checkpoint that is one file."""


def numbers_in_folder(folder: Path) -> int | None:
    """How many numbers the network in a folder of diffusers' layout has; None where there is none.

    Of the same network in several precisions, one is counted.
    """
    return _counted(sorted(folder.glob("*.safetensors")), lambda name: True) if folder.is_dir() else None


def numbers_in_file(path: Path, network: str | None) -> int | None:
    """How many numbers a file has; None where it is not there or cannot be read.

    Args:
        network: of these networks of a checkpoint alone; None: all.
    """
    if path.is_dir():
        return numbers_in_folder(path)
    if not path.is_file():
        return None
    if path.suffix != ".safetensors":
        return path.stat().st_size // FULL_BYTES
    places = _PLACES.get(network or "", ("",))
    return _counted([path], lambda name: name.startswith(places))


def _counted(paths: list[Path], wanted: Callable[[str], bool]) -> int | None:
    found: dict[str, int] = {}
    try:
        for path in paths:
            found.update((name, size) for name, size in _sizes(path) if wanted(name))
    except (OSError, Unrecognised):
        return None
    return sum(found.values()) or None


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    for name, shape in read_header(path).shapes.items():
        yield name, math.prod(shape)
