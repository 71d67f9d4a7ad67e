"""Recognise LoRAs by their tensors; refuse those of no use. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.lora_names import LoraTensor, read_name
from pipelines.weights.text_widths import FAMILY_BY_TEXT_WIDTH, FOREIGN_BY_TEXT_WIDTH

_HERE = "this server has LoRA, DoRA, LoHa and LoKr"
_DRAWN_WITH = "this server draws with SD1.5 and SDXL"

_FOREIGN: Mapping[str, str] = {
    r"lora_te3_|text_encoder_3\.|joint_blocks|joint_transformer_blocks": "a LoRA for Stable Diffusion 3",
    r"double_blocks|single_blocks|double_stream|single_stream|single_transformer_blocks": "a LoRA for Flux",
    r"blocks[._]\d+[._](cross_attn|self_attn)[._](q|k|v|o)\b": "a LoRA for Wan",
    r"img_mlp|txt_mlp|img_mod": "a LoRA for Qwen-Image",
    r"motion_modules": "a motion LoRA for AnimateDiff",
    r"lora_prior_|prior\.": "a LoRA for a prior (Kandinsky, Stable Cascade)",
    r"attentions\.\d+\.(processor\.)?add_[kv]_proj": "a LoRA for Kandinsky",
    r"lora_transformer_|transformer\.transformer_blocks": "a LoRA for Flux or Stable Diffusion 3",
    r"^(lora_unet_|diffusion_model\.|transformer\.|base_model\.model\.)?transformer_blocks[._]":
        "a LoRA for a transformer (PixArt, LTX, Qwen-Image)",
    r"^(lora_unet_|diffusion_model\.|transformer\.|base_model\.model\.)?(layers|blocks)[._]\d":
        "a LoRA for a transformer (Wan, Lumina, Z-Image)",
    r"^(base_model\.model\.)?model\.layers\.\d": "a LoRA for a language model",
}  # fmt: skip
"""LoRAs of other families, by an expression for a layer's name; the first that matches."""

_OTHER_THINGS: Mapping[str, str] = {
    r"^lora_controlnet$": "a Control-LoRA; this server has whole ControlNets",
    r"^(ip_adapter\.|image_proj(_model)?\.)|\.to_k_ip\.|\.processor\.to_[kv]_ip": "an IP-Adapter",
    r"\.lora_E(\.\w+)?$": f"an AdaLoRA; {_HERE}",
}
"""Things that have a LoRA's matrices and are none, by an expression for a tensor's name."""

_ADAPTERS = ("lora_", "lycoris_", "base_model.", "unet.", "text_encoder", "diffusion_model.")
"""Beginnings of the names that layers of adapters have, and tensors of checkpoints have not."""

_SD15_MARK = re.compile(r"down_blocks\.(0\.attentions|3)|up_blocks\.(2\.attentions|3)")
_SDXL_MARK = re.compile(r"transformer_blocks\.[1-9]|add_embedding|up_blocks\.0\.attentions|text_projection")
_SDXL_PLACES = re.compile(r"(down_blocks\.[12]|up_blocks\.[01])\.attentions")
_TEXT_READER = re.compile(r"attn2\.to_[kv]")
_SD2_TEXT_WIDTH = 1024


def is_lora(shapes: Shapes) -> bool:
    """Whether any tensor is of a LoRA, LoHa or LoKr."""
    return any(_has_factor(read_name(key)) for key in shapes)


def demand_usable_lora(shapes: Shapes) -> None:
    """Refuse an adapter with which this server cannot draw; files of other kinds pass.

    Layers of kinds that this server lacks are no reason, where there are others that can be drawn with.

    Raises:
        Unrecognised: the adapter is of no use here; the error says why.
    """
    for pattern, name in _OTHER_THINGS.items():
        if any(re.search(pattern, key) for key in shapes):
            raise Unrecognised(f"it is {name}")
    tensors = [(key, tensor) for key in shapes if (tensor := read_name(key)) is not None]
    usable = any(_has_factor(tensor) for _, tensor in tensors)
    if not usable:
        other = next((tensor for _, tensor in tensors if tensor.layer.startswith(_ADAPTERS)), None)
        if other is not None and other.other is not None:
            raise Unrecognised(f"it has layers of {other.other} ({other.part}) alone; {_HERE}")
        return
    for key, tensor in tensors:
        if tensor.part == "magnitude" and shapes[key] and shapes[key][0] == 1 < math.prod(shapes[key]):
            raise Unrecognised(
                "its DoRA magnitudes are of columns (LyCORIS without wd_on_out); PEFT has rows'"
            )
        if tensor.part == "alpha" and math.prod(shapes[key]) != 1:
            raise Unrecognised(f"{key} has {math.prod(shapes[key])} numbers, and an alpha is one")


def lora_family(shapes: Shapes) -> StableDiffusionFamily | None:
    """The family that a LoRA was made for; None where it changes only what both families have.

    Raises:
        Unrecognised: it was made for a network that is neither.
    """
    read = [(key, tensor) for key in shapes if (tensor := read_name(key)) is not None]
    tensors = [(key, tensor) for key, tensor in read if _has_factor(tensor)]
    for pattern, name in _FOREIGN.items():
        for key, _ in tensors:
            if re.search(pattern, key):
                raise Unrecognised(f"it is {name}; {_DRAWN_WITH}")
    widths = set(_text_widths(shapes))
    if foreign := [FOREIGN_BY_TEXT_WIDTH[width] for width in widths if width in FOREIGN_BY_TEXT_WIDTH]:
        raise Unrecognised(f"it is a LoRA for {foreign[0]}; {_DRAWN_WITH}")
    known: set[StableDiffusionFamily] = {
        family for width in widths if (family := FAMILY_BY_TEXT_WIDTH.get(width)) is not None
    }
    if len(known) == 1:
        return known.pop()
    names = [tensor.module for _, tensor in tensors if tensor.module is not None]
    if not names:
        first = min(tensor.layer for _, tensor in tensors)
        raise Unrecognised(
            f"it is a LoRA for another network than those of SD1.5 and SDXL: it changes {first}"
        )
    return _family_of_names(tensors, names)


def _family_of_names(tensors: list[tuple[str, LoraTensor]], names: list[str]) -> StableDiffusionFamily | None:
    if any(tensor.network == "text_encoder_2" or key.startswith("lora_te1_") for key, tensor in tensors):
        return "sdxl"
    if any(_SD15_MARK.match(name) for name in names):
        return "sd15"
    if any(_SDXL_MARK.search(name) for name in names):
        return "sdxl"
    if any(key.startswith("lora_te_") for key, _ in tensors):
        return "sd15"
    # SD1.5 has attentions in these places, too, but a file that leaves out all others was not made for it.
    places = {match[1] for name in names if (match := _SDXL_PLACES.match(name))}
    return "sdxl" if len(places) > 1 else None


def _has_factor(tensor: LoraTensor | None) -> bool:
    """Whether a tensor is a matrix of a LoRA, LoHa or LoKr."""
    return tensor is not None and tensor.other is None and tensor.part not in ("alpha", "magnitude")


def _text_widths(shapes: Shapes) -> Iterator[int]:
    """The widths of the texts that a LoRA's cross-attentions read; 1024 also of SD2's text encoder."""
    parts: dict[str, tuple[LoraTensor, dict[str, tuple[int, ...]]]] = {}
    for key, shape in shapes.items():
        tensor = read_name(key)
        if tensor is not None and _has_factor(tensor):
            parts.setdefault(tensor.layer, (tensor, {}))[1][tensor.part] = shape
    for tensor, own in parts.values():
        width = input_width(own)
        if width is None or tensor.module is None:
            continue
        if (tensor.network == "unet" and _TEXT_READER.search(tensor.module)) or (
            tensor.network != "unet" and width == _SD2_TEXT_WIDTH and ".self_attn." in tensor.module
        ):
            yield width


def input_width(parts: Mapping[str, tuple[int, ...]]) -> int | None:
    """The width of what a layer reads, from the shapes of its parts; None where they do not tell."""
    if len(down := parts.get("down", ())) >= 2:
        return math.prod(down[1:])
    if parts.get("hada_w1_b"):
        return parts["hada_w1_b"][-1]
    first = parts.get("lokr_w1", parts.get("lokr_w1_b", ()))
    second = parts.get("lokr_w2", parts.get("lokr_w2_b", ()))
    return first[-1] * math.prod(second[1:]) if len(first) == 2 and len(second) >= 2 else None
