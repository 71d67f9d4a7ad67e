"""Find a VAE or a ControlNet in a file of its own, in whichever of its names. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.weights.header import Header
from pipelines.weights.layouts.names import deprecated, vae_spellings
from pipelines.weights.layouts.numbers import demand_readable_numbers
from pipelines.weights.layouts.placing import Placed, Spelling, demand_nothing_else, place
from pipelines.weights.layouts.tensors import Expected
from pipelines.weights.layouts.unet import controlnet_layout
from pipelines.weights.layouts.vae import vae_layout
from pipelines.weights.layouts.variants import variant

VAE_PREFIXES = ("", "first_stage_model.", "vae.")
"""What may stand before the names of a VAE in a file of its own."""

_CONTROLNET_PREFIXES = ("control_model.", "controlnet.", "")


def vae_network(header: Header, config: Mapping[str, Any]) -> Placed:
    """Find the tensors of a VAE.

    Args:
        config: the configuration of the VAE that it replaces.
    Raises:
        Unrecognised: it is not whole, or has another shape.
    """
    placed = place(vae_layout(config), header.shapes, vae_spellings(*VAE_PREFIXES), "VAE")
    demand_readable_numbers(header, [taken.key for taken in placed.values()])
    return placed


def controlnet_network(header: Header, config: Mapping[str, Any]) -> tuple[Placed, dict[str, Any]]:
    """Find the tensors of a ControlNet.

    Args:
        config: the configuration of the UNet that it steers.
    Returns:
        what the network takes, and its own configuration.
    Raises:
        Unrecognised: it is not whole, or has another shape.
    """
    prefix = next(
        each
        for each in _CONTROLNET_PREFIXES
        if not each or any(key.startswith(each) for key in header.shapes)
    )
    own = {
        name.removeprefix(prefix): shape for name, shape in header.shapes.items() if name.startswith(prefix)
    }
    found = variant({**config, "time_cond_proj_dim": None, "in_channels": 4}, own)
    placed = place(controlnet_layout(found), header.shapes, _controlnet_spellings(prefix), "ControlNet")
    demand_nothing_else(own, {taken.key.removeprefix(prefix) for taken in placed.values()}, "ControlNet")
    demand_readable_numbers(header, [taken.key for taken in placed.values()])
    return placed, found


def _controlnet_spellings(prefix: str) -> Callable[[Expected], Iterator[Spelling]]:
    def spellings(each: Expected) -> Iterator[Spelling]:
        yield prefix + each.original, "none"
        yield prefix + each.name, "none"
        for name in deprecated(each.name):
            yield prefix + name, "none"

    return spellings
