"""The modules of SD1.5's and SDXL's networks: from any program's name for one to its name in diffusers.

Torch-free: a load tells by these names what a file is, and a drawing finds by them the modules that change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LAYERS_PER_BLOCK = 2
"""The resnets in each block of SD1.5's and SDXL's networks; small ones of tests may have fewer."""

_UNET_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "resnets", "attentions", "downsamplers", "upsamplers",
    "transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj_in",
    "proj_out", "proj", "norm1", "norm2", "norm3", "norm", "conv1", "conv2", "conv_shortcut",
    "conv_in", "conv_out",
    "conv_norm_out", "conv", "time_emb_proj", "time_embedding", "time_embed", "linear_1", "linear_2",
    "add_embedding", "input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers",
    "skip_connection", "label_emb", "op", "out", "processor",
)  # fmt: skip
_TEXT_WORDS = (
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "to_q", "to_k",
    "to_v", "to_out", "mlp", "fc1", "fc2", "layer_norm1", "layer_norm2", "text_projection",
    "final_layer_norm",
    "transformer", "resblocks", "attn", "c_fc", "c_proj", "ln_1", "ln_2", "ln_final",
)  # fmt: skip


def _any_word(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"({'|'.join(longest_first)}|\d+)(?:_|$)")


_UNET_WORD, _TEXT_WORD = _any_word(_UNET_WORDS), _any_word(_TEXT_WORDS)

_IN_RESNETS = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_OUTSIDE_BLOCKS = {
    "input_blocks.0.0": "conv_in", "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2", "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_ORIGINAL = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")

_OPEN_CLIP = {
    "transformer.resblocks.": "encoder.layers.", ".ln_1": ".layer_norm1", ".ln_2": ".layer_norm2",
    ".attn.out_proj": ".self_attn.out_proj", ".mlp.c_fc": ".mlp.fc1", ".mlp.c_proj": ".mlp.fc2",
    "ln_final": "final_layer_norm",
}  # fmt: skip
_OLD_PROJECTION = re.compile(r"\.self_attn\.to_(q|k|v|out)$")

_TRANSFORMER = r"transformer_blocks\.\d\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2)|norm[123])"
_RESNET = r"(norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut)"
_BLOCK = rf"(resnets\.[0-2]\.{_RESNET}|attentions\.[0-2]\.(norm|proj_in|proj_out|{_TRANSFORMER}))"
_UNET = re.compile(
    rf"(down_blocks|up_blocks)\.[0-3]\.({_BLOCK}|(down|up)samplers\.0\.conv)|mid_block\.{_BLOCK}"
    r"|conv_in|conv_norm_out|conv_out|(time|add)_embedding\.linear_[12]"
)
_TEXT_ENCODER = re.compile(
    r"encoder\.layers\.([12]?\d|3[01])\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12]|layer_norm[12])"
    r"|text_projection|final_layer_norm"
)


def unet_module(name: str, *, flat: bool, layers_per_block: int = LAYERS_PER_BLOCK) -> str | None:
    """The name in diffusers of a module of the UNet; None for what is no such module.

    Args:
        name: a name of diffusers or of the original release.
        flat: whether its dots are underscores, as kohya's scripts and LyCORIS have it.
    """
    dotted = _dotted(name, _UNET_WORD) if flat else name
    if dotted is None:
        return None
    dotted = dotted.replace(".processor.", ".")
    dotted = f"{dotted}.0" if dotted.endswith(".to_out") else dotted
    dotted = _of_original(dotted, layers_per_block)
    return dotted if _UNET.fullmatch(dotted) else None


def text_module(name: str, *, flat: bool) -> str | None:
    """The name of a text encoder's module in transformers, below ``text_model``; None for no such module.

    Args:
        name: a name of transformers, of diffusers' older releases, or of OpenCLIP.
        flat: whether its dots are underscores.
    """
    dotted = _dotted(name, _TEXT_WORD) if flat else name
    if dotted is None:
        return None
    dotted = dotted.removeprefix("text_model.")
    for old, new in _OPEN_CLIP.items():
        dotted = dotted.replace(old, new)
    dotted = _OLD_PROJECTION.sub(r".self_attn.\1_proj", dotted)
    return dotted if _TEXT_ENCODER.fullmatch(dotted) else None


def _dotted(flat: str, words: re.Pattern[str]) -> str | None:
    """A name with the dots that became underscores; None where it has other words than a network's."""
    parts: list[str] = []
    at = 0
    while at < len(flat):
        word = words.match(flat, at)
        if word is None:
            return None
        parts.append(word[1])
        at = word.end()
    return ".".join(parts)


def _of_original(name: str, layers_per_block: int) -> str:
    """The name in diffusers of a UNet's module in the original release; any other name stays as it is."""
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    if name.startswith("middle_block."):
        at, _, rest = name.removeprefix("middle_block.").partition(".")
        return f"mid_block.{_MIDDLE.get(at, at)}.{_IN_RESNETS.get(rest, rest)}"
    match = _ORIGINAL.fullmatch(name)
    if match is None:
        return name
    side, number, place, rest = match[1], int(match[2]) - (match[1] == "input"), match[3], match[4]
    block, index = divmod(number, layers_per_block + 1)
    if rest == "op":
        return f"down_blocks.{block}.downsamplers.0.conv"
    if side == "output" and rest == "conv":
        return f"up_blocks.{block}.upsamplers.0.conv"
    kind = "resnets" if place == "0" else "attentions"
    blocks = "down_blocks" if side == "input" else "up_blocks"
    return f"{blocks}.{block}.{kind}.{index}.{_IN_RESNETS.get(rest, rest)}"
