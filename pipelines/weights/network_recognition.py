"""Recognise single networks by their tensors: VAEs and ControlNets. Torch-free."""

from __future__ import annotations

import re

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.layouts.networks import VAE_PREFIXES
from pipelines.weights.text_widths import FAMILY_BY_TEXT_WIDTH, FOREIGN_BY_TEXT_WIDTH

_SIZE_READERS = ("add_embedding.linear_1.weight", "label_emb.0.0.weight")
_TEXT_READERS = re.compile(r"attn2[._](processor\.)?to_k\.weight$")
_PLACES_IN_SD15 = re.compile(r"down\.blocks\.0\.attentions|input\.blocks\.1\.1")
_PLACES_IN_SDXL = re.compile(r"transformer\.blocks\.[1-9]|\.blocks\.\d\.attentions|input\.blocks\.[78]\.1")


def is_controlnet(shapes: Shapes) -> bool:
    """Whether a network reads a control image as ControlNets do."""
    return any("controlnet_cond_embedding" in key or "input_hint_block" in key for key in shapes)


def controlnet_family(shapes: Shapes) -> StableDiffusionFamily:
    """The family of the networks that a ControlNet steers.

    Raises:
        Unrecognised: it is made for another family.
    """
    if not any("transformer_blocks" in key for key in shapes):
        # Without any attention, the reader of the picture's size tells SDXL.
        return "sdxl" if any(key.endswith(_SIZE_READERS) for key in shapes) else "sd15"
    for width in (shape[-1] for key, shape in shapes.items() if shape and _TEXT_READERS.search(key)):
        if width in FOREIGN_BY_TEXT_WIDTH:
            foreign = FOREIGN_BY_TEXT_WIDTH[width]
            raise Unrecognised(f"it is a ControlNet for {foreign}; this server draws with SD1.5 and SDXL")
        if width in FAMILY_BY_TEXT_WIDTH:
            return FAMILY_BY_TEXT_WIDTH[width]
    names = " ".join(shapes).replace("_", ".")
    if _PLACES_IN_SD15.search(names):
        return "sd15"
    if _PLACES_IN_SDXL.search(names):
        return "sdxl"
    raise Unrecognised("it is a ControlNet for another network than those of SD1.5 and SDXL")


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
