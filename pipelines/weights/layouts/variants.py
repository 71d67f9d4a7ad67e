"""Which UNet a file has: the published one, or one with other channels, fewer layers or smaller attentions.

The heads of its attentions cannot be told from its tensors; they are those of the published one. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.weights.header import Shapes
from pipelines.weights.layouts.unet import down_depths, up_depths

_ORIGINAL = re.compile(r"(input|output)_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.")
_DIFFUSERS = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.")
_DOWNSAMPLER = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")
_LAYER = re.compile(r"down_blocks\.0\.resnets\.(\d+)\.")


@dataclass(slots=True)
class _Found:
    """What the names of a UNet say of it.

    Attributes:
        layers: the layers of each level on the way down.
        depths: the number of transformer blocks of each attention, by way, level and layer.
    """

    layers: int
    depths: dict[tuple[str, int, int], int] = field(default_factory=dict[tuple[str, int, int], int])


def variant(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The configuration of a file's UNet, or of the half of one that a ControlNet is.

    Args:
        config: the configuration of the published UNet of its family; what the file does not say otherwise
            stays as it is there.
        shapes: its tensors in diffusers' names or the original ones, without a prefix.
    """
    found = _in_original_names(shapes) or _in_diffusers_names(shapes)
    if found is None:
        return dict(config)
    own: dict[str, Any] = {**config, "layers_per_block": found.layers}
    first = _first(shapes, "input_blocks.0.0.weight", "conv_in.weight")
    if first is not None and len(first) == 4:
        own["in_channels"] = first[1]
    guided = _first(shapes, "time_embed.cond_proj.weight", "time_embedding.cond_proj.weight")
    if guided is not None and len(guided) == 2:
        own["time_cond_proj_dim"] = guided[1]
    if not any(name.startswith(("middle_block.2.", "mid_block.resnets.1.")) for name in shapes):
        has_middle = any(name.startswith(("middle_block.0.", "mid_block.resnets.0.")) for name in shapes)
        own["mid_block_type"] = "UNetMidBlock2D" if has_middle else None
    return own | _attentions(config, found, has_way_up=_has_way_up(shapes))


def _attentions(config: Mapping[str, Any], found: _Found, *, has_way_up: bool) -> dict[str, Any]:
    """The options on attentions; empty where they are as published."""
    levels = len(config["block_out_channels"])
    down = _depths(found, "down", levels, found.layers)
    up = _depths(found, "up", levels, found.layers + 1)
    own: dict[str, Any] = {}
    kinds = [("CrossAttnDownBlock2D" if any(level) else "DownBlock2D") for level in down]
    if kinds != list(config["down_block_types"]):
        own["down_block_types"] = kinds
    if has_way_up:
        kinds = [("CrossAttnUpBlock2D" if any(level) else "UpBlock2D") for level in up]
        if kinds != list(config["up_block_types"]):
            own["up_block_types"] = kinds
    as_published = {**config, "layers_per_block": found.layers}
    same_down = _same(down, down_depths(as_published))
    if same_down and (not has_way_up or _same(up, up_depths(as_published))):
        return own
    own["transformer_layers_per_block"] = [level if any(level) else 1 for level in down]
    if has_way_up:
        own["reverse_transformer_layers_per_block"] = [level if any(level) else 1 for level in up]
    return own


def _depths(found: _Found, way: str, levels: int, layers: int) -> list[list[int]]:
    return [[found.depths.get((way, level, layer), 0) for layer in range(layers)] for level in range(levels)]


def _same(ours: list[list[int]], published: list[list[int]]) -> bool:
    """Whether the levels that have attentions have those of the published network."""
    return all(not any(level) or level == other for level, other in zip(ours, published, strict=True))


def _in_original_names(shapes: Shapes) -> _Found | None:
    downsamplers = sorted(int(match[1]) for name in shapes if (match := _DOWNSAMPLER.fullmatch(name)))
    if not downsamplers or downsamplers[0] < 2:
        return None
    found = _Found(layers=downsamplers[0] - 1)
    for name in shapes:
        if match := _ORIGINAL.match(name):
            block, depth = int(match[2]), int(match[3]) + 1
            way = "down" if match[1] == "input" else "up"
            level, layer = divmod(block - (way == "down"), found.layers + 1)
            key = (way, level, layer)
            found.depths[key] = max(depth, found.depths.get(key, 0))
    return found


def _in_diffusers_names(shapes: Shapes) -> _Found | None:
    layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
    if not layers:
        return None
    found = _Found(layers=max(layers) + 1)
    for name in shapes:
        if match := _DIFFUSERS.match(name):
            key = (match[1], int(match[2]), int(match[3]))
            found.depths[key] = max(int(match[4]) + 1, found.depths.get(key, 0))
    return found


def _has_way_up(shapes: Shapes) -> bool:
    return any(name.startswith(("output_blocks.", "up_blocks.")) for name in shapes)


def _first(shapes: Shapes, *names: str) -> tuple[int, ...] | None:
    return next((shapes[name] for name in names if name in shapes), None)
