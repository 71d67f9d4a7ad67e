"""Find the networks of a checkpoint that is one file, whoever saved it. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.weights.header import Header, Shapes
from pipelines.weights.layouts.clip import JOINED, JOINT, clip_layout
from pipelines.weights.layouts.names import vae_spellings
from pipelines.weights.layouts.numbers import demand_readable_numbers
from pipelines.weights.layouts.placing import Placed, Spelling, demand_nothing_else, place, thirds
from pipelines.weights.layouts.tensors import Expected
from pipelines.weights.layouts.unet import unet_layout
from pipelines.weights.layouts.vae import vae_layout
from pipelines.weights.layouts.variants import variant
from pipelines.weights.prediction import demand_known_prediction

_FIRST_CONVOLUTION = "diffusion_model.input_blocks.0.0.weight"
_FIRST_OF_THE_EMA = "diffusion_modelinput_blocks00weight"
_EMA = "model_ema."
"""The prefix of the running means of a UNet's weights; their names lack all other dots."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of a checkpoint.

    Attributes:
        placed: what each takes from the file, by the network's folder in diffusers' layout.
        unet_config: the configuration of the UNet, in diffusers' words.
    """

    placed: Mapping[str, Placed]
    unet_config: Mapping[str, Any]


def is_checkpoint(shapes: Shapes) -> bool:
    """Whether a file has a UNet in the original names of Stable Diffusion, with whatever else."""
    return any(key.endswith(_FIRST_CONVOLUTION) or key == _EMA + _FIRST_OF_THE_EMA for key in shapes) or any(
        key.startswith("model.diffusion_model.") for key in shapes
    )


def network_prefix(shapes: Shapes) -> str:
    """What stands before a UNet's own names; ``model.diffusion_model.`` unless a trainer wrapped it."""
    found = sorted(
        (key.removesuffix(_FIRST_CONVOLUTION) for key in shapes if key.endswith(_FIRST_CONVOLUTION)), key=len
    )
    usual = "model." if not found or "model." in found else found[0]
    return f"{usual}diffusion_model."


def wrapper(shapes: Shapes) -> str:
    """What a trainer wrote before every name of a checkpoint; empty for most."""
    return network_prefix(shapes).removesuffix("diffusion_model.").removesuffix("model.")


def checkpoint_networks(header: Header, folder: Path) -> Networks:
    """Find UNet, VAE and text encoders of a checkpoint.

    Args:
        folder: the configuration of its family, in diffusers' layout.
    Raises:
        Unrecognised: one of them is not whole or has another shape; the error says which.
    """
    demand_known_prediction(header)
    shapes = header.shapes
    prefix, outer = network_prefix(shapes), wrapper(shapes)
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    config = variant(_config(folder, "unet"), own)
    unet = place(unet_layout(config), shapes, _unet_spellings(prefix), "network")
    demand_nothing_else(own, {taken.key.removeprefix(prefix) for taken in unet.values()}, "network")
    placed = {
        "unet": unet,
        "vae": place(
            vae_layout(_config(folder, "vae")),
            shapes,
            vae_spellings(f"{outer}first_stage_model.", "first_stage_model."),
            "VAE",
        ),
    }
    two = (folder / "text_encoder_2").is_dir()
    places = ["conditioner.embedders.0."] if two else ["cond_stage_model.", "conditioner.embedders.0."]
    layout = clip_layout(_config(folder, "text_encoder"), projected=False)
    placed["text_encoder"] = place(layout, shapes, _clip_spellings(outer, places), "text encoder")
    if two:
        layout = clip_layout(_config(folder, "text_encoder_2"), projected=True)
        spellings = _clip_spellings(outer, ["conditioner.embedders.1."])
        placed["text_encoder_2"] = place(layout, shapes, spellings, "second text encoder")
    for network in placed.values():
        demand_readable_numbers(header, {taken.key for taken in network.values()})
    return Networks(placed, config)


def _config(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / part / "config.json").read_text())


def _unet_spellings(prefix: str) -> Callable[[Expected], Iterator[Spelling]]:
    def spellings(each: Expected) -> Iterator[Spelling]:
        yield prefix + each.original, "none"
        # Whoever turns diffusers' names into original ones leaves those that the original releases lack.
        yield prefix + each.name, "none"
        yield _EMA + f"diffusion_model.{each.original}".replace(".", ""), "none"

    return spellings


def _clip_spellings(outer: str, places: list[str]) -> Callable[[Expected], Iterator[Spelling]]:
    """The names of a text encoder: those of transformers, new or old, or those of OpenCLIP."""

    def spellings(each: Expected) -> Iterator[Spelling]:
        for place_ in [outer + place_ for place_ in places] + (places if outer else []):
            for middle in ("transformer.text_model.", "transformer.", "text_model.", ""):
                yield place_ + middle + each.name, "none"
            original = f"{place_}model.{each.original}"
            if JOINT in each.original:
                yield from thirds(each, original, JOINED)
            elif each.original == "text_projection":
                yield original, "transposed"
                yield f"{original}.weight", "none"
            else:
                yield original, "none"
                yield f"{original}.weight", "none"  # positional_embedding, as some merges have it

    return spellings
