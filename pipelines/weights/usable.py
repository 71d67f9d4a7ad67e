"""Whether a file that came can be drawn with: its first drawing must not refuse it. Torch-free."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pipelines.weights.finite import demand_finite
from pipelines.weights.header import Shapes, Unrecognised, read_shapes
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.lora_names import read_names
from pipelines.weights.lora_settings import HEADER_KEY, of_header
from pipelines.weights.recognition import Recognised, recognise

_READ_WHOLE = ("lora", "embedding", "vae")
"""The kinds that are small enough to be read whole at load; a VAE has 0.3 GB."""

_PAIRS = (("up", "down"), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))
"""Parts of a layer that are multiplied with each other."""


def recognise_file(path: Path) -> Recognised:
    """Tell kind and family of a file from its header, and look at the numbers of small ones. Blocking.

    Raises:
        Unrecognised: it is nothing with which this server can draw, or damaged; the error says what.
    """
    shapes = read_shapes(path)
    recognised = recognise(shapes)
    if recognised.kind == "lora":
        _demand_whole(shapes)
        metadata = _metadata(path)
        _demand_readable(metadata)
        recognised = replace(recognised, family=recognised.family or _said_family(metadata))
    if recognised.kind in _READ_WHOLE:
        demand_finite(path)
    return recognised


def _demand_whole(shapes: Shapes) -> None:
    """Refuse a LoRA whose matrices do not fit each other, whatever network they are for.

    Raises:
        Unrecognised: a layer lacks a matrix, or two of its matrices have different ranks.
    """
    for name, layer in read_names(shapes).layers.items():
        parts = layer.parts
        if not {"mid", "hada_t1"}.isdisjoint(parts):
            continue
        for pair in _PAIRS:
            if not set(pair) <= parts.keys():
                continue
            one, other = (shapes[parts[part]] for part in pair)
            if len(one) < 2 or len(other) < 2 or 0 in (*one, *other) or one[1] != other[0]:
                raise Unrecognised(
                    f"its layer {name} is not whole: {list(one)} and {list(other)} do not have one rank"
                )


def _demand_readable(metadata: Mapping[str, str]) -> None:
    """Refuse an adapter whose header says that it is of a kind that this server lacks."""
    try:
        of_header(metadata.get(HEADER_KEY, "{}"))
    except ValueError:
        return  # a drawing says that the settings cannot be read


def _said_family(metadata: Mapping[str, str]) -> StableDiffusionFamily | None:
    """The family that trainers wrote into the header; for files whose layers both families have.

    Raises:
        Unrecognised: it is a family that this server does not have.
    """
    said = " ".join(
        metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version")
    ).lower()
    if metadata.get("ss_v2") == "True" or "v2" in said:
        raise Unrecognised("it is a LoRA for Stable Diffusion 2; this server draws with SD1.5 and SDXL")
    if "xl" in said:
        return "sdxl"
    return "sd15" if "v1" in said else None


def _metadata(path: Path) -> Mapping[str, str]:
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = cast("dict[str, Any]", json.loads(file.read(length)))
    found = header.get("__metadata__")
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in cast("dict[str, Any]", found).items() if isinstance(value, str)}
