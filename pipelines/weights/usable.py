"""Whether an adapter's file that came can be drawn with: its first drawing must not refuse it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.weights.finite import demand_finite
from pipelines.weights.header import Header, Shapes, Unrecognised
from pipelines.weights.kinds import Kind, StableDiffusionFamily
from pipelines.weights.lora_names import read_names
from pipelines.weights.lora_settings import HEADER_KEY, of_header

_READ_WHOLE = ("lora", "embedding", "vae")
"""The kinds that are small enough to be read whole at load; a VAE has 0.3 GB."""

_PAIRS = (("up", "down"), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))
"""Parts of a layer that are multiplied with each other."""


def demand_usable(
    path: Path, header: Header, kind: Kind, *, thorough: bool = True
) -> StableDiffusionFamily | None:
    """Refuse an adapter that its first drawing would refuse; small files are read whole. Blocking.

    Args:
        thorough: whether small files are read whole.
    Returns:
        The family that the writer of a LoRA noted; None if it noted none.
    Raises:
        Unrecognised: it is damaged, or of another family; the error says what.
    """
    family = None
    if kind == "lora":
        _demand_whole(header.shapes)
        _demand_readable(header.metadata)
        family = _said_family(header.metadata)
    if thorough and kind in _READ_WHOLE:
        demand_finite(path)
    return family


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
    if "xl" in said:
        return "sdxl"
    if metadata.get("ss_v2") == "True" or "v2" in said:
        raise Unrecognised("it is a LoRA for Stable Diffusion 2; this server draws with SD1.5 and SDXL")
    return "sd15" if "v1" in said else None
