"""A textual inversion's tensors by their names and shapes: the text encoder that each is for. Torch-free."""

from __future__ import annotations

import re

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.text_widths import FOREIGN_BY_TEXT_WIDTH

FIRST_ENCODER = ("clip_l", "text_encoders_0", "text_encoder_0", "text_encoder", "text_encoder_1")
"""Names of the vectors for SDXL's first text encoder, whatever trainer wrote them."""

SECOND_ENCODER = ("clip_g", "text_encoders_1", "text_encoder_2")
"""Names of the vectors for SDXL's second text encoder."""

_OTHER_ENCODERS = {"t5": "Flux or Stable Diffusion 3", "t5xxl": "Flux or Stable Diffusion 3",
                   "clip_h": "Stable Diffusion 2", "qwen": "Qwen-Image"}  # fmt: skip
_ONLY = re.compile(r"(string_to_param(\..*)?|emb_params|\*)$")
_ENDS = re.compile(r"\.(emb_params|weight)$")
_IGNORED = re.compile(r"(_out|string_to_token.*|name|step|sd_checkpoint(_name)?)$")
"""What is put beside the vectors: OneTrainer's vectors of an encoder's output, AUTOMATIC1111's settings."""

_WIDTHS = (768, 1280)
"""The widths of SDXL's two text encoders, in their order."""

ONLY = "only"


def vectors_by_encoder(shapes: Shapes) -> dict[str, str]:
    """The tensors of a textual inversion: ``clip_l`` and ``clip_g`` of SDXL, or ``only`` -> tensor's name.

    Raises:
        Unrecognised: it is a textual inversion of another family, or of several words; the error says which.
    """
    named = {key: _ENDS.sub("", key) for key in shapes if not _IGNORED.search(_ENDS.sub("", key))}
    for key, name in named.items():
        if name in _OTHER_ENCODERS:
            raise Unrecognised(f"it is a textual inversion for {_OTHER_ENCODERS[name]} (it has {key})")
    first = next((key for key, name in named.items() if name in FIRST_ENCODER), None)
    second = next((key for key, name in named.items() if name in SECOND_ENCODER), None)
    if first is not None and second is not None:
        return {"clip_l": first, "clip_g": second}
    if second is not None:
        raise Unrecognised(f"it has vectors for SDXL's second text encoder alone ({second})")
    if first is not None:
        return {ONLY: first}
    if only := next((key for key in named if _ONLY.search(key)), None):
        return {ONLY: only}
    if len(named) == 1:
        return {ONLY: next(iter(named))}
    by_width = {shapes[key][-1]: key for key in named if shapes[key]}
    if len(named) == 2 and by_width.keys() == set(_WIDTHS):
        return {"clip_l": by_width[_WIDTHS[0]], "clip_g": by_width[_WIDTHS[1]]}
    words = ", ".join(sorted(named)[:3])
    raise Unrecognised(
        f"it holds the vectors of {len(named)} words ({words}); this server loads a word a file"
    )


def embedding_family(shapes: Shapes) -> StableDiffusionFamily | None:
    """The family that a textual inversion was made for; None for files that are none.

    Raises:
        Unrecognised: it is a textual inversion with which this server cannot draw.
    """
    if not _looks_like_one(shapes):
        return None
    found = vectors_by_encoder(shapes)
    for key in found.values():
        shape = shapes[key]
        if len(shape) not in (1, 2) or 0 in shape:
            raise Unrecognised(f"{key} has the shape {list(shape)}, and a word's vectors are a row each")
    if ONLY not in found:
        return "sdxl"
    width = shapes[found[ONLY]][-1]
    if width == _WIDTHS[1]:
        raise Unrecognised("it is a textual inversion for SDXL's second text encoder alone")
    if width in FOREIGN_BY_TEXT_WIDTH:
        raise Unrecognised(f"it is a textual inversion for {FOREIGN_BY_TEXT_WIDTH[width]}")
    return "sd15"


def _looks_like_one(shapes: Shapes) -> bool:
    if any(_ONLY.search(key) or _ENDS.sub("", key) in (*FIRST_ENCODER, *SECOND_ENCODER) for key in shapes):
        return True
    rows = all(0 < len(shape) <= 2 for shape in shapes.values())
    if not rows:
        return False
    bracketed = all(key.startswith("<") for key in shapes)
    two_widths = len(shapes) == 2 and {shape[-1] for shape in shapes.values()} == set(_WIDTHS)
    return len(shapes) == 1 or bracketed or two_widths
