"""Recognise single networks by their tensors: VAEs and ControlNets. Torch-free."""

from __future__ import annotations

from pipelines.weights.header import Shapes, Unrecognised


def is_controlnet(shapes: Shapes) -> bool:
    """Whether a network reads a control image as ControlNets do."""
    return any("controlnet_cond_embedding" in key or "input_hint_block" in key for key in shapes)


def is_vae(shapes: Shapes) -> bool:
    """Whether a file is a VAE of the shape that SD1.5 and SDXL have.

    Raises:
        Unrecognised: it is a VAE of other latents.
    """
    names = {key.removeprefix("first_stage_model.") for key in shapes}
    if not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= names:
        return False
    channels = next(
        shape[1]
        for key, shape in shapes.items()
        if key.removeprefix("first_stage_model.") == "decoder.conv_in.weight"
    )
    if channels != 4:
        raise Unrecognised(f"it is a VAE with {channels} latent channels; SD1.5 and SDXL have 4")
    return True
