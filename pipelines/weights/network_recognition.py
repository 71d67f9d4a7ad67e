"""Recognise single networks by their tensors: VAEs and ControlNets. Torch-free."""

from __future__ import annotations

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.layouts.networks import VAE_PREFIXES


def is_controlnet(shapes: Shapes) -> bool:
    """Whether a network reads a control image as ControlNets do."""
    return any("controlnet_cond_embedding" in key or "input_hint_block" in key for key in shapes)


def is_vae(shapes: Shapes) -> bool:
    """Whether a file is a VAE of the shape that SD1.5 and SDXL have.

    Raises:
        Unrecognised: it is a VAE of other latents, or half of one.
    """
    encoder, decoder = (_first_convolution(shapes, side) for side in ("encoder", "decoder"))
    if encoder is None and decoder is None:
        return False
    if encoder is None or decoder is None:
        raise Unrecognised(f"it is a VAE without its {'encoder' if encoder is None else 'decoder'}")
    channels = decoder[1] if len(decoder) > 1 else 0
    if channels != 4:
        raise Unrecognised(f"it is a VAE with {channels} latent channels; SD1.5 and SDXL have 4")
    return True


def _first_convolution(shapes: Shapes, side: str) -> tuple[int, ...] | None:
    keys = [f"{prefix}{side}.conv_in.weight" for prefix in VAE_PREFIXES]
    return next((shapes[key] for key in keys if key in shapes), None)
