"""Whether a LoRA has a layer that fits a checkpoint of some configuration. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.weights.header import Shapes
from pipelines.weights.layouts.clip import clip_layout
from pipelines.weights.layouts.unet import unet_layout
from pipelines.weights.lora_names import read_names

_CLIP = {"text_encoder": False, "text_encoder_2": True}
"""The text encoders, and whether the last layer of each is a projection."""


def fits_somewhere(shapes: Shapes, folder: Path) -> bool:
    """Whether any layer has the shape of the module that it changes.

    Args:
        folder: a configuration in diffusers' layout.
    """
    config = _config(folder, "unet")
    weights = {("unet", name): shape for name, shape in _weights(unet_layout(config)).items()}
    for network, projected in _CLIP.items():
        if (folder / network / "config.json").is_file():
            layout = _weights(clip_layout(_config(folder, network), projected=projected))
            weights |= {(network, name): shape for name, shape in layout.items()}
    for layer in read_names(shapes, int(config["layers_per_block"])).layers.values():
        wanted = weights.get((layer.network, layer.module))
        found = changed_shape({part: shapes[name] for part, name in layer.parts.items()})
        if wanted is not None and len(wanted) in (2, 4) and found == (wanted[0], math.prod(wanted[1:])):
            return True
    return False


def changed_shape(parts: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """The shape of the weight that a layer changes, as a matrix; zeros where its parts make none."""
    try:
        return _changed(parts)
    except (KeyError, IndexError):
        return 0, 0


def _changed(parts: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    if "down" in parts:
        return parts["up"][0], math.prod(parts["down"][1:]) * math.prod(parts.get("mid", ())[2:])
    if "hada_w1_a" in parts:
        if "hada_t1" in parts:
            return parts["hada_w1_a"][1], parts["hada_w1_b"][1] * math.prod(parts["hada_t1"][2:])
        return parts["hada_w1_a"][0], parts["hada_w1_b"][1]
    first = parts.get("lokr_w1") or (parts["lokr_w1_a"][0], parts["lokr_w1_b"][1])
    if "lokr_w2" in parts:
        second = parts["lokr_w2"][0], math.prod(parts["lokr_w2"][1:])
    elif "lokr_t2" in parts:
        second = parts["lokr_w2_a"][1], parts["lokr_w2_b"][1] * math.prod(parts["lokr_t2"][2:])
    else:
        second = parts["lokr_w2_a"][0], math.prod(parts["lokr_w2_b"][1:])
    return first[0] * second[0], first[1] * second[1]


def _weights(layout: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by its modules, without the level that some releases put before."""
    return {
        each.name.removesuffix(".weight").removeprefix("text_model."): each.shape
        for each in layout
        if each.name.endswith(".weight")
    }


def _config(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / part / "config.json").read_text())
