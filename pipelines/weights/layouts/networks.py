"""Find a VAE or a ControlNet in a file of its own, in whichever of its names. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.weights.header import Header, Shapes
from pipelines.weights.layouts.names import deprecated, vae_spellings
from pipelines.weights.layouts.numbers import demand_readable_numbers
from pipelines.weights.layouts.placing import Placed, Spelling, demand_nothing_else, place
from pipelines.weights.layouts.tensors import Expected
from pipelines.weights.layouts.unet import controlnet_layout
from pipelines.weights.layouts.vae import vae_layout
from pipelines.weights.layouts.variants import variant

VAE_PREFIXES = ("", "first_stage_model.", "vae.")
"""What may stand before the names of a VAE in a file of its own."""

HINT_CHANNELS = "conditioning_embedding_out_channels"
"""The name in diffusers of the channels of a ControlNet's layers on the control image."""

_HINT = re.compile(
    r"(?:input_hint_block\.(\d+)|controlnet_cond_embedding\.(?:blocks\.(\d+)|conv_in))\.weight"
)
"""The layers of a ControlNet on the control image, but for the last one of diffusers' names."""

_LAST_HINT = "controlnet_cond_embedding.conv_out.weight"

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
    found[HINT_CHANNELS] = _hint_channels(own)
    placed = place(controlnet_layout(found), header.shapes, _controlnet_spellings(prefix), "ControlNet")
    demand_nothing_else(own, {taken.key.removeprefix(prefix) for taken in placed.values()}, "ControlNet")
    demand_readable_numbers(header, [taken.key for taken in placed.values()])
    return placed, found


def _hint_channels(own: Shapes) -> list[int]:
    """The channels of a ControlNet's layers on the control image; empty where it has none.

    Between the first layer and the last stand pairs, of which the second halves the picture and widens it.
    """
    numbered = ((_HINT.fullmatch(name), shape) for name, shape in own.items())
    layers = sorted((int(match[1] or match[2] or -1), shape) for match, shape in numbered if match)
    widths = [shape[0] for _, shape in layers if shape]
    return (widths if _LAST_HINT in own else widths[:-1])[::2]


def _controlnet_spellings(prefix: str) -> Callable[[Expected], Iterator[Spelling]]:
    def spellings(each: Expected) -> Iterator[Spelling]:
        yield prefix + each.original, "none"
        yield prefix + each.name, "none"
        for name in deprecated(each.name):
            yield prefix + name, "none"

    return spellings
