"""The number formats in which a file may hold a network's weights. Torch-free."""

from __future__ import annotations

from collections.abc import Collection

from pipelines.weights.header import Header, Unrecognised

PLAIN = ("F64", "F32", "F16", "BF16")
EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
"""The formats of 8 bits, whose weights may have been divided by a scale that lies beside them."""

SCALES = (".scale_weight", ".weight_scale")
"""The ends of the names of those scales; they stand in the place of ``.weight``."""

NOT_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant", "position_ids", "scaled_fp8")
"""The ends of the names of what lies among a network's weights without being one."""

_QUANTISED = ("absmax", "quant_map", "quant_state", "qweight", "qzeros", "lut", "SCB", "nested_absmax")
"""Parts of the names by which quantised weights of bitsandbytes, GPTQ and AWQ are told."""


def demand_readable_numbers(header: Header, keys: Collection[str]) -> None:
    """Refuse weights in a format that is not read here.

    Raises:
        Unrecognised: a weight is quantised, or packed.
    """
    for key in keys:
        dtype = header.dtypes.get(key, "F32")
        if dtype not in PLAIN and dtype not in EIGHT_BITS:
            raise Unrecognised(
                f"its weights are quantised ({dtype}); this server reads fp32, fp16, bf16 and fp8"
            )
        scaled = [header.shapes[scale] for scale in scales(key) if scale in header.shapes]
        if dtype in EIGHT_BITS and any(shape not in ((), (1,)) for shape in scaled):
            raise Unrecognised("its fp8 weights have a scale for each block, which is not read here")


def demand_not_quantised(header: Header) -> None:
    """Refuse a file of quantised weights by its names, before their shapes are found wrong.

    Raises:
        Unrecognised: it was quantised.
    """
    if any(not set(key.split(".")).isdisjoint(_QUANTISED) for key in header.shapes):
        raise Unrecognised("its weights are quantised; this server reads fp32, fp16, bf16 and fp8")


def scales(key: str) -> list[str]:
    """The names under which the scale of a weight may lie beside it."""
    return [key.removesuffix(".weight") + end for end in SCALES] if key.endswith(".weight") else []
