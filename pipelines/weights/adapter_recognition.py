"""Recognise LoRAs and textual inversions by their tensors; refuse those of no use. Torch-free."""

from __future__ import annotations

import math
import re

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.text_widths import FOREIGN_BY_TEXT_WIDTH, family_by_attentions

_LORA = re.compile(
    r"(lora_(down|up|A|B)(\.\w+)?\.weight|lora\.(down|up)\.weight|hada_w\d_[ab]|lokr_w\d(_[ab])?)$"
)
_OTHER_ADAPTERS = {
    "oft_blocks": "OFT", "oft_diag": "OFT", "on_input": "(IA)³", "diff": "whole weights", "diff_b": "biases",
    "w_norm": "normalisations", "b_norm": "normalisations", "a1.weight": "GLoRA",
    "lora_mid.weight": "LoRA with a Tucker core",
}  # fmt: skip
"""The adapters that kohya's scripts and LyCORIS train and PEFT lacks, by the ends of their tensors' names."""
DORA_MAGNITUDE = re.compile(r"\.(dora_scale|lora_magnitude_vector(\.weight)?)$")
"""The end of the name of a DoRA magnitude (Liu et al. 2024): the learnt length of each row of a weight."""
_ADAPTER_PREFIXES = ("lora_", "lycoris_")
_PEFT_PREFIX = "base_model.model."


def is_lora(shapes: Shapes) -> bool:
    """Whether any tensor is of a LoRA, LoHa or LoKr."""
    return any(_LORA.search(key) for key in shapes)


def lora_family(shapes: Shapes) -> StableDiffusionFamily:
    """The family that a LoRA was made for."""
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in shapes):
        return "sdxl"
    return family_by_attentions(shapes, "LoRA")


def embedding_family(shapes: Shapes) -> StableDiffusionFamily | None:
    """The family that a textual inversion was made for; None for files that are none.

    Raises:
        Unrecognised: it is a textual inversion for another family.
    """
    if {"clip_l", "clip_g"} <= shapes.keys():
        return "sdxl"
    if "emb_params" in shapes or (len(shapes) == 1 and all(len(shape) <= 2 for shape in shapes.values())):
        width = next(iter(shapes.values()))[-1] if next(iter(shapes.values())) else 0
        if width in FOREIGN_BY_TEXT_WIDTH:
            raise Unrecognised(f"it is a textual inversion for {FOREIGN_BY_TEXT_WIDTH[width]}")
        return "sd15"
    return None


def demand_usable_lora(shapes: Shapes) -> None:
    """Refuse a LoRA with which this server cannot draw; files of other kinds pass.

    Raises:
        Unrecognised: the LoRA is of no use here; the error says why.
    """
    for key in shapes:
        end = next((end for end in _OTHER_ADAPTERS if key.endswith(f".{end}")), None)
        if end is not None and key.startswith(_ADAPTER_PREFIXES):
            kind = _OTHER_ADAPTERS[end]
            raise Unrecognised(f"it has layers of {kind} ({end}); this server has LoRA, DoRA, LoHa and LoKr")
        if key.startswith("lycoris_"):
            raise Unrecognised(
                "its layers are named lycoris_...; save it in the names of kohya's scripts or PEFT"
            )
        if key.endswith(".dora_scale") and shapes[key][0] == 1 < math.prod(shapes[key]):
            raise Unrecognised(
                "its DoRA magnitudes are of columns (LyCORIS without wd_on_out); PEFT has rows'"
            )
    decomposed = {DORA_MAGNITUDE.sub("", key) for key in shapes if DORA_MAGNITUDE.search(key)}
    networks = {_network(layer) for layer in decomposed}
    layers = {_LORA.split(key)[0].rstrip(".") for key in shapes if _LORA.search(key)}
    if any(layer not in decomposed and _network(layer) in networks for layer in layers):
        raise Unrecognised(
            "some of its layers have a DoRA magnitude and others none, which PEFT does not mix"
        )


def with_network(name: str) -> str:
    """The name in diffusers of a tensor that PEFT saved without the name of its network."""
    if not name.startswith(_PEFT_PREFIX):
        return name
    rest = name.removeprefix(_PEFT_PREFIX)
    return f"text_encoder.{rest}" if rest.startswith("text_model.") else f"unet.{rest}"


def _network(layer: str) -> str:
    """The part of a layer's name that names its network."""
    kohya = layer.startswith(_ADAPTER_PREFIXES)
    return "_".join(layer.split("_")[:2]) if kohya else layer.partition(".")[0]
