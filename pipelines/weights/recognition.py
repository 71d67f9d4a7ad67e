"""What a .safetensors file is, told from its tensors' names and shapes alone. Torch-free."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipelines.weights.kinds import Kind, StableDiffusionFamily

Shapes = Mapping[str, tuple[int, ...]]

MAX_HEADER_BYTES = 100_000_000
"""The most bytes that the header of a .safetensors file may have; the format's own reader takes no more."""

_FAMILY_BY_TEXT_WIDTH: Mapping[int, StableDiffusionFamily] = {768: "sd15", 2048: "sdxl"}
"""The family of a network by the width of the text encodings that its cross-attentions read."""

_FOREIGN_BY_TEXT_WIDTH = {
    1024: "Stable Diffusion 2",
    1280: "the SDXL refiner",
    4096: "a network with a T5 text encoder",
}
"""The networks that this server does not have, by the width of the text encodings that they read."""

_FOREIGN_MARKS = (
    ("double_blocks", "Flux"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("single_transformer_blocks", "Flux"),
    ("joint_transformer_blocks", "Stable Diffusion 3"),
    ("lora_transformer_", "a transformer (Flux, Stable Diffusion 3)"),
    ("transformer.transformer_blocks", "a transformer (Flux, Stable Diffusion 3)"),
)
"""A part of a tensor's name, and the family that this server does not have in which it occurs."""

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
_TEXT_READERS = re.compile(r"attn2[._](to|processor\.to)_[kv]")


class Unrecognised(Exception):
    """A file with which this server cannot draw; ``str(error)`` says what it is, or why."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The kind and family of a file; the family is None for VAEs, which have the same shapes in both."""

    kind: Kind
    family: StableDiffusionFamily | None


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


def recognise(shapes: Shapes) -> Recognised:
    """Tell kind and family of a file from its tensors.

    Raises:
        Unrecognised: the tensors belong to another family, or to nothing that is known here.
    """
    if not shapes:
        raise Unrecognised("it holds no tensors")
    for mark, name in _FOREIGN_MARKS:
        if any(mark in key for key in shapes):
            raise Unrecognised(f"it belongs to {name}; this server draws with SD1.5 and SDXL")
    demand_usable_lora(shapes)
    if any(_LORA.search(key) for key in shapes):
        return Recognised("lora", _lora_family(shapes))
    if any("controlnet_cond_embedding" in key or "input_hint_block" in key for key in shapes):
        return Recognised("controlnet", _by_attentions(shapes, "controlnet"))
    if any(key.startswith("model.diffusion_model.") for key in shapes):
        return Recognised("checkpoint", _checkpoint_family(shapes))
    if _is_vae(shapes):
        return Recognised("vae", None)
    if {"clip_l", "clip_g"} <= shapes.keys():
        return Recognised("embedding", "sdxl")
    if "emb_params" in shapes or (len(shapes) == 1 and all(len(shape) <= 2 for shape in shapes.values())):
        width = next(iter(shapes.values()))[-1] if next(iter(shapes.values())) else 0
        if width in _FOREIGN_BY_TEXT_WIDTH:
            raise Unrecognised(f"it is a textual inversion for {_FOREIGN_BY_TEXT_WIDTH[width]}")
        return Recognised("embedding", "sd15")
    if any(key.startswith(("down_blocks.", "input_blocks.", "conv_in.")) for key in shapes):
        raise Unrecognised("it is one network of a checkpoint; the whole checkpoint is needed")
    raise Unrecognised("it is not a checkpoint, LoRA, textual inversion, VAE or ControlNet")


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


def _checkpoint_family(shapes: Shapes) -> StableDiffusionFamily:
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else 4
    if channels != 4:
        kind = {9: "an inpainting checkpoint", 8: "an editing checkpoint (InstructPix2Pix)"}
        said = kind.get(channels, "a checkpoint")
        raise Unrecognised(f"it is {said} whose network reads {channels} channels; 4 are supported")
    if not any(key.startswith("first_stage_model.") for key in shapes):
        raise Unrecognised("it is a checkpoint without its VAE")
    if any(key.startswith("conditioner.embedders.1.") for key in shapes):
        return "sdxl"
    if any(key.startswith("conditioner.") for key in shapes):
        raise Unrecognised("it is the SDXL refiner; this server draws with SDXL's base")
    if any(key.startswith("cond_stage_model.model.") for key in shapes):
        raise Unrecognised("it belongs to Stable Diffusion 2; this server draws with SD1.5 and SDXL")
    if any(key.startswith("cond_stage_model.transformer.") for key in shapes):
        return "sd15"
    raise Unrecognised("it is a checkpoint without its text encoder")


def _lora_family(shapes: Shapes) -> StableDiffusionFamily:
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in shapes):
        return "sdxl"
    return _by_attentions(shapes, "LoRA")


def _by_attentions(shapes: Shapes, what: str) -> StableDiffusionFamily:
    """The family by the width of the text that attentions read, or else by the places of the attentions."""
    for key in shapes:
        width = _text_width(key, shapes) if _TEXT_READERS.search(key) else None
        if width is None:
            continue
        if width in _FOREIGN_BY_TEXT_WIDTH:
            raise Unrecognised(
                f"it is a {what} for {_FOREIGN_BY_TEXT_WIDTH[width]}; this server draws with SD1.5 and SDXL"
            )
        if width in _FAMILY_BY_TEXT_WIDTH:
            return _FAMILY_BY_TEXT_WIDTH[width]
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


def _is_vae(shapes: Shapes) -> bool:
    names = {key.removeprefix("first_stage_model.") for key in shapes}
    if not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= names:
        return False
    channels = next(
        shape[1]
        for key, shape in shapes.items()
        if key.removeprefix("first_stage_model.") == "decoder.conv_in.weight"
    )
    if channels != 4:
        raise Unrecognised(f"it is a VAE with {channels} latent channels; SD1.5 and SDXL have 4")
    return True
