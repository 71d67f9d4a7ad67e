"""Look for numbers that are none in a .safetensors file, block by block and without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipelines.weights.header import Unrecognised

_BLOCK_BYTES = 1 << 22

_EXPONENTS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("<u1", 0x7C),
    "F8_E4M3": ("<u1", 0x7F),
}
"""Each number format as integers, and the bits that are all set in infinities and in what is no number.

F8_E4M3 has no infinities, and one pattern for what is no number.
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
            format_, mask = _EXPONENTS[described["dtype"]]
            begin, end = described["data_offsets"]
            file.seek(8 + length + begin)
            for at in range(begin, end, _BLOCK_BYTES):
                bits = np.frombuffer(file.read(min(_BLOCK_BYTES, end - at)), format_)
                if ((bits & bits.dtype.type(mask)) == mask).any():
                    raise Unrecognised(f"its tensor {name} has numbers that are infinite or none (NaN)")
