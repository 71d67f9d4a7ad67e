"""Look for numbers that are none in a .safetensors file, block by block and with Python's own means."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, cast

from pipelines.weights.header import Unrecognised

_BLOCK_BYTES = 1 << 20

_EXPONENTS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "F64": (8, ((7, 0x7F), (6, 0xF0))),
    "F32": (4, ((3, 0x7F), (2, 0x80))),
    "F16": (2, ((1, 0x7C),)),
    "BF16": (2, ((1, 0x7F), (0, 0x80))),
    "F8_E5M2": (1, ((0, 0x7C),)),
    "F8_E4M3": (1, ((0, 0x7F),)),
}
"""The bytes of each number format, and which of them (place, bits) have all these bits in what is no number.

So have infinities; F8_E4M3 has none.
"""


def demand_finite(path: Path) -> None:
    """Read all tensors of a file, and refuse an infinity and what is no number. Blocking.

    Raises:
        Unrecognised: a tensor is not finite; the error names it.
    """
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = cast("dict[str, Any]", json.loads(file.read(length)))
        for name, described in header.items():
            if name == "__metadata__" or described["dtype"] not in _EXPONENTS:
                continue
            begin, end = described["data_offsets"]
            file.seek(8 + length + begin)
            for at in range(begin, end, _BLOCK_BYTES):
                if _has_none(file.read(min(_BLOCK_BYTES, end - at)), *_EXPONENTS[described["dtype"]]):
                    raise Unrecognised(f"its tensor {name} has numbers that are infinite or none (NaN)")


def _has_none(block: bytes, size: int, places: tuple[tuple[int, int], ...]) -> bool:
    """Whether any number of a block has all bits of its exponent; a byte stands for each number meanwhile."""
    marked = -1
    for place, bits in places:
        marks = bytes((byte & bits) == bits for byte in range(256))
        marked &= int.from_bytes(block[place::size].translate(marks), "little")
    return marked != 0
