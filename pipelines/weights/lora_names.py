"""A LoRA's tensors by their names: the network, the module and the part of the layer that each belongs to.

Torch-free. A load recognises LoRAs by these names and a drawing places their layers by them, in one reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from pipelines.weights.header import Unrecognised
from pipelines.weights.module_names import LAYERS_PER_BLOCK, text_module, unet_module

Network = Literal["unet", "text_encoder", "text_encoder_2"]
"""The networks that a LoRA can change, by the names of a diffusers pipeline's attributes."""

NETWORKS: tuple[Network, ...] = ("unet", "text_encoder", "text_encoder_2")

BUNDLE = "bundle_emb."
"""The beginning of the names of a textual inversion's tensors that OneTrainer puts into a LoRA."""

_MATRICES = re.compile(
    r"[._]lora(?:_(?P<kohya>down|up|mid)|_(?P<peft>[AB])(?:\.(?!weight|bias)\w+)?"
    r"|(?:_linear_layer)?\.(?P<diffusers>down|up))\.(?P<kind>weight|bias)$"
)
_FACTORS = re.compile(r"\.(?P<part>hada_(?:w\d_[ab]|t\d)|lokr_(?:w\d(?:_[ab])?|t2))$")
_ALPHA = re.compile(r"(?:[._]lora)?\.alpha$")
_MAGNITUDE = re.compile(r"\.(?:dora_scale|lora_magnitude_vector(?:\.\w+)*)$")

OTHER_ENDS = {
    "oft_blocks": "OFT", "oft_diag": "OFT", "oft_R": "OFT", "oft_r": "OFT", "boft_R": "BOFT",
    "boft_s": "BOFT", "on_input": "(IA)³", "ia3_l": "(IA)³", "diff": "whole weights", "full": "whole weights",
    "set_weight": "whole weights", "diff_b": "biases", "w_norm": "normalisations", "b_norm": "normalisations",
    "a1.weight": "GLoRA", "a2.weight": "GLoRA", "b1.weight": "GLoRA", "b2.weight": "GLoRA",
    "lora_E": "AdaLoRA", "vera_lambda_b": "VeRA", "vera_lambda_d": "VeRA", "hra_u": "HRA",
    "lora_embedding_A": "word embeddings", "lora_embedding_B": "word embeddings", "scalar": "scalars",
}  # fmt: skip
"""Kinds of layers that trainers have and this server lacks, by the ends of their tensors' names."""

_IN_PARTS = {"down": "down", "A": "down", "up": "up", "B": "up", "mid": "mid"}

FLAT_PREFIXES: Mapping[str, Network] = {
    "lora_unet_": "unet", "lycoris_unet_": "unet", "lycoris_te1_": "text_encoder",
    "lycoris_te2_": "text_encoder_2", "lycoris_te_": "text_encoder", "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
}  # fmt: skip
"""Prefixes of names in which underscores stand for dots: of kohya's scripts, LyCORIS and who follows them."""

DOTTED_PREFIXES: Mapping[str, Network] = {
    "unet.": "unet", "lora_unet.": "unet", "unet_lora.": "unet", "diffusion_model.": "unet",
    "text_encoder.": "text_encoder", "text_encoder_1.": "text_encoder", "text_encoder_one.": "text_encoder",
    "text_encoder_lora.": "text_encoder", "lora_te.": "text_encoder", "lora_te1.": "text_encoder",
    "clip_l.": "text_encoder", "text_encoders.clip_l.": "text_encoder", "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.": "text_encoder",
    "text_encoder_2.": "text_encoder_2", "text_encoder_two.": "text_encoder_2",
    "text_encoder_2_lora.": "text_encoder_2", "lora_te2.": "text_encoder_2", "clip_g.": "text_encoder_2",
    "text_encoders.clip_g.": "text_encoder_2", "conditioner.embedders.1.": "text_encoder_2",
}  # fmt: skip
WRAPPERS = ("base_model.model.", "base_model.", "_orig_mod.", "module.", "transformer.", "model.")
"""What PEFT, torch.compile, distributed training and the original release put before a module's name."""


@dataclass(frozen=True, slots=True)
class LoraTensor:
    """The place of one tensor.

    Attributes:
        network: None where the name is of no network of this server.
        module: the module in diffusers' or transformers' names; None where the network has none of that name.
        layer: the name up to the part, as the file has it.
        part: ``down``, ``up`` (also ``up.bias``), ``mid``, ``alpha``, ``magnitude``, those of LoHa and LoKr
            in their own names; for others the end of the name.
        other: the kind of layer, where this server lacks it.
    """

    network: Network | None
    module: str | None
    layer: str
    part: str
    other: str | None = None


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """One layer: where it belongs, and the names of its tensors by their parts.

    Attributes:
        network: empty where this server has none of that name.
        module: the file's own name of the layer where the network has no such module.
    """

    network: str
    module: str
    parts: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class LoraNames:
    """All tensors of a file by what they are.

    Attributes:
        layers: the layers whose parts make a LoRA, LoHa or LoKr, by their names in the file.
        others: the layers of each kind that this server lacks.
        strays: tensors that are no part of a layer.
        bundles: word -> name of the tensor in a textual inversion -> the tensor's name.
        unsaid_alphas: networks whose layers are PEFT's own, which stores alphas in another file.
    """

    layers: dict[str, NamedLayer] = field(default_factory=dict[str, NamedLayer])
    others: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    strays: list[str] = field(default_factory=list[str])
    bundles: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    unsaid_alphas: set[str] = field(default_factory=set[str])


@lru_cache(maxsize=100_000)  # files of one kind have the same names, and each is asked for several times
def read_name(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> LoraTensor | None:
    """Tell where a tensor belongs; None for what is no part of a layer, whatever it is.

    Args:
        layers_per_block: the resnets in each block of the network, by which original names are numbered.
    """
    split = _split(name)
    if split is None:
        return None
    layer, part, other = split
    network, module = _module(layer, layers_per_block)
    return LoraTensor(network, module, layer, part, other)


def read_names(names: Iterable[str], layers_per_block: int = LAYERS_PER_BLOCK) -> LoraNames:
    """Sort all tensors of a file.

    Raises:
        Unrecognised: a layer lacks one of its matrices.
    """
    found = LoraNames()
    gathered: dict[str, NamedLayer] = {}
    for name in names:
        if name.startswith(BUNDLE) and name.count(".") >= 2:
            word, _, inner = name.removeprefix(BUNDLE).partition(".")
            found.bundles.setdefault(word, {})[inner] = name
            continue
        tensor = read_name(name, layers_per_block)
        if tensor is None:
            found.strays.append(name)
        elif tensor.other is not None:
            found.others.setdefault(f"{tensor.other} ({tensor.part})", set()).add(tensor.layer)
        else:
            named = NamedLayer(tensor.network or "", tensor.module or tensor.layer)
            gathered.setdefault(tensor.layer, named).parts[tensor.part] = name
            if re.search(r"lora_A(\.\w+)?\.weight$|\.hada_w1_a$|\.lokr_w1", name) and _says_nothing(tensor):
                found.unsaid_alphas.add(tensor.network or "")
    for name, layer in gathered.items():
        if layer.parts.keys() <= {"alpha", "magnitude"}:
            found.strays += layer.parts.values()
        elif _whole(layer.parts.keys()):
            if {"magnitude", "up.bias"} <= layer.parts.keys():  # PEFT has DoRAs without biases
                found.strays.append(layer.parts.pop("up.bias"))
            found.layers[name] = layer
        else:
            raise Unrecognised(
                f"its layer {name} is not whole: it has {', '.join(sorted(layer.parts))} alone"
            )
    return found


def _says_nothing(tensor: LoraTensor) -> bool:
    """Whether a layer's name is one of PEFT's own, without the name of a network before it."""
    return "base_model.model." in tensor.layer or not _without_wrappers(tensor.layer).startswith(
        (*FLAT_PREFIXES, *DOTTED_PREFIXES, "lycoris_", "lora_")
    )


def _whole(parts: Iterable[str]) -> bool:
    have = set(parts)
    if have & {"down", "up", "mid", "up.bias"}:
        return {"down", "up"} <= have and not any(part.startswith(("hada", "lokr")) for part in have)
    if any(part.startswith("hada") for part in have):
        cores = have & {"hada_t1", "hada_t2"}
        return {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= have and len(cores) != 1
    first = "lokr_w1" in have or {"lokr_w1_a", "lokr_w1_b"} <= have
    return first and ("lokr_w2" in have or {"lokr_w2_a", "lokr_w2_b"} <= have)


def _split(name: str) -> tuple[str, str, str | None] | None:
    """A tensor's name as that of its layer, the part, and the kind where this server lacks it."""
    if match := _MATRICES.search(name):
        part = _IN_PARTS[match["kohya"] or match["peft"] or match["diffusers"]]
        if match["kind"] == "bias" and part != "up":
            return None
        return name[: match.start()], f"{part}.bias" if match["kind"] == "bias" else part, None
    if match := _FACTORS.search(name):
        return name[: match.start()], match["part"], None
    for pattern, part in ((_ALPHA, "alpha"), (_MAGNITUDE, "magnitude")):
        if match := pattern.search(name):
            return name[: match.start()], part, None
    for end, kind in OTHER_ENDS.items():
        bare = name.removesuffix(".default").removesuffix(".weight") if "weight" not in end else name
        if bare.endswith(f".{end}"):
            return bare.removesuffix(f".{end}"), end, kind
    return None


def _module(layer: str, layers_per_block: int) -> tuple[Network | None, str | None]:
    """The network and the module that a layer changes."""
    for prefix, network in FLAT_PREFIXES.items():
        if layer.startswith(prefix):
            return network, _in(network, layer.removeprefix(prefix), layers_per_block, flat=True)
    if layer.startswith("lycoris_"):
        return _guessed(layer.removeprefix("lycoris_"), layers_per_block, flat=True)
    rest = _without_wrappers(layer)
    for prefix, network in DOTTED_PREFIXES.items():
        if rest.startswith(prefix):
            own = _without_wrappers(rest.removeprefix(prefix))
            return network, _in(network, own, layers_per_block, flat=False)
    return _guessed(rest, layers_per_block, flat=False)


def _without_wrappers(name: str) -> str:
    while wrapper := next((each for each in WRAPPERS if name.startswith(each)), None):
        if name.startswith("transformer.resblocks."):
            break
        name = name.removeprefix(wrapper)
    return name


def _guessed(name: str, layers_per_block: int, *, flat: bool) -> tuple[Network | None, str | None]:
    """The network of a module before whose name none stands."""
    if (module := _in("unet", name, layers_per_block, flat=flat)) is not None:
        return "unet", module
    if (module := _in("text_encoder", name, layers_per_block, flat=flat)) is not None:
        return ("text_encoder_2" if module == "text_projection" else "text_encoder"), module
    return None, None


def _in(network: Network, name: str, layers_per_block: int, *, flat: bool) -> str | None:
    if network == "unet":
        return unet_module(name, flat=flat, layers_per_block=layers_per_block)
    return text_module(name, flat=flat)
