"""Read the header of a .safetensors file: what it is made of, without its tensors. Torch-free."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's tensors by their names."""

MAX_HEADER_BYTES = 100_000_000
"""The most bytes that the header of a .safetensors file may have; the format's own reader takes no more."""


class Unrecognised(Exception):
    """A file with which this server cannot draw; ``str(error)`` says what it is, or why."""


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a file's tensors from its header.

    Raises:
        Unrecognised: the file is no .safetensors file, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise Unrecognised("it is not a .safetensors file")
        text = file.read(length)
    try:
        header = cast("dict[str, Any]", json.loads(text))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        shapes = {name: tuple(int(side) for side in value["shape"]) for name, value in tensors.items()}
        end = max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise Unrecognised("it is not a .safetensors file") from error
    if size != 8 + length + end:
        raise Unrecognised("it is cut off, or has something after its tensors")
    return shapes
