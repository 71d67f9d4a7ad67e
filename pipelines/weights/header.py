"""Read the header of a .safetensors file: what it is made of, without its tensors. Torch-free."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.weights.beginnings import ENOUGH, MAX_HEADER_BYTES, foreign

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's tensors by their names."""


class Unrecognised(Exception):
    """A file with which this server cannot draw; ``str(error)`` says what it is, or why."""


_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""The bits of a number in each of the format's number formats."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a .safetensors file says before its tensors.

    Attributes:
        shapes: by the tensors' names.
        dtypes: their number formats in the file's own words (``F16``), by the same names.
        metadata: what the writer noted.
    """

    shapes: Shapes
    dtypes: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def read_header(path: Path) -> Header:
    """Read a file's header; its tensors are not read.

    Raises:
        Unrecognised: the file is no .safetensors file, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            file.seek(0)
            raise Unrecognised(_named(file.read(ENOUGH)))
        text = file.read(length)
    try:
        content = cast("dict[str, Any]", json.loads(text))
        tensors = {name: value for name, value in content.items() if name != "__metadata__"}
        shapes = {name: tuple(int(side) for side in value["shape"]) for name, value in tensors.items()}
        dtypes = {name: str(value.get("dtype", "")) for name, value in tensors.items()}
        noted = cast("dict[str, Any]", content.get("__metadata__") or {})
        metadata = {key: str(value) for key, value in noted.items()}
        end = max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
        if size == 8 + length + end:
            _demand_consistent(tensors, shapes)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise Unrecognised("it is not a .safetensors file: its header is damaged") from error
    if size != 8 + length + end:
        raise Unrecognised("it is cut off, or has something after its tensors")
    return Header(shapes, dtypes, metadata)


def _named(start: bytes) -> str:
    """The refusal of a file that is none of the format, by its first bytes."""
    refusal, words = "it is not a .safetensors file", foreign(start)
    return refusal if words is None or words in refusal else f"{refusal}: it {words}"


def _demand_consistent(tensors: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse a header that the format's own reader would refuse when it is drawn with.

    Raises:
        Unrecognised: a tensor has another size than its shape says, or they overlap or leave gaps.
    """
    end = 0
    for name, value in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = value["data_offsets"]
        bits = _BITS.get(value.get("dtype"))
        if bits is None:
            raise Unrecognised(f"its header is damaged: {name} has the number format {value.get('dtype')}")
        if first != end or last - first != math.prod(shapes[name]) * bits // 8:
            raise Unrecognised(f"its header is damaged: {name} does not lie where it says")
        end = last
