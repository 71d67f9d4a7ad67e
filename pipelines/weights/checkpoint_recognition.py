"""Recognise whole checkpoints of one file by their tensors. Torch-free."""

from __future__ import annotations

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily


def is_checkpoint(shapes: Shapes) -> bool:
    """Whether a file has a network in the original names of Stable Diffusion, with whatever else."""
    return any(key.startswith("model.diffusion_model.") for key in shapes)


def checkpoint_family(shapes: Shapes) -> StableDiffusionFamily:
    """The family of a checkpoint that can be opened.

    Raises:
        Unrecognised: it is a checkpoint of another family, of another shape, or not whole.
    """
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else 4
    if channels != 4:
        kind = {9: "an inpainting checkpoint", 8: "an editing checkpoint (InstructPix2Pix)"}
        said = kind.get(channels, "a checkpoint")
        raise Unrecognised(f"it is {said} whose network reads {channels} channels; 4 are supported")
    if not any(key.startswith("first_stage_model.") for key in shapes):
        raise Unrecognised("it is a checkpoint without its VAE")
    if any(key.startswith("conditioner.embedders.1.") for key in shapes):
        return "sdxl"
    if any(key.startswith("conditioner.") for key in shapes):
        raise Unrecognised("it is the SDXL refiner; this server draws with SDXL's base")
    if any(key.startswith("cond_stage_model.model.") for key in shapes):
        raise Unrecognised("it belongs to Stable Diffusion 2; this server draws with SD1.5 and SDXL")
    if any(key.startswith("cond_stage_model.transformer.") for key in shapes):
        return "sd15"
    raise Unrecognised("it is a checkpoint without its text encoder")
