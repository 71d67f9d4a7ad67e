"""Tell a network's family by the width of the text encodings that its attentions read. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily

FAMILY_BY_TEXT_WIDTH: Mapping[int, StableDiffusionFamily] = {768: "sd15", 2048: "sdxl"}
"""The family of a network by the width of the text encodings that its cross-attentions read."""

FOREIGN_BY_TEXT_WIDTH = {
    1024: "Stable Diffusion 2",
    1280: "the SDXL refiner",
    4096: "a network with a T5 text encoder",
}
"""The networks that this server does not have, by the width of the text encodings that they read."""

_TEXT_READERS = re.compile(r"attn2[._](to|processor\.to)_[kv]")


def family_by_attentions(shapes: Shapes, what: str) -> StableDiffusionFamily:
    """The family by the width of the text that attentions read, or else by the places of the attentions."""
    for key in shapes:
        width = _text_width(key, shapes) if _TEXT_READERS.search(key) else None
        if width is None:
            continue
        if width in FOREIGN_BY_TEXT_WIDTH:
            raise Unrecognised(
                f"it is a {what} for {FOREIGN_BY_TEXT_WIDTH[width]}; this server draws with SD1.5 and SDXL"
            )
        if width in FAMILY_BY_TEXT_WIDTH:
            return FAMILY_BY_TEXT_WIDTH[width]
    names = " ".join(shapes).replace("_", ".")
    if re.search(r"down\.blocks\.0\.attentions|input\.blocks\.1\.1|up\.blocks\.3\.attentions", names):
        return "sd15"
    if re.search(r"transformer\.blocks\.[1-9]|\.blocks\.\d\.attentions|input\.blocks\.[78]\.1", names):
        return "sdxl"
    if any(key.startswith(("lora_te_", "text_encoder.")) for key in shapes):
        return "sd15"
    raise Unrecognised(f"it is a {what} for another network than those of SD1.5 and SDXL")


def _text_width(key: str, shapes: Shapes) -> int | None:
    """The width of the text that a layer reads, from one of its tensors, in whatever way it is factored."""
    shape = shapes[key]
    if key.endswith(("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight")):
        return shape[1] if len(shape) >= 2 else None
    if key.endswith("hada_w1_b"):
        return shape[-1]
    if key.endswith(("lokr_w1", "lokr_w1_b")):
        stem = key.rpartition(".")[0]
        other = shapes.get(f"{stem}.lokr_w2", shapes.get(f"{stem}.lokr_w2_b"))
        return shape[-1] * math.prod(other[1:]) if other and len(shape) == 2 else None
    if key.endswith("to_k.weight"):
        return shape[-1]
    return None
