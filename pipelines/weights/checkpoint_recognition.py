"""Recognise whole checkpoints of one file by their tensors. Torch-free."""

from __future__ import annotations

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import StableDiffusionFamily
from pipelines.weights.layouts.checkpoint import network_prefix, wrapper

_BY_CHANNELS = {
    5: "a checkpoint for depth to image",
    7: "a checkpoint for enlarging pictures",
    8: "an editing checkpoint (InstructPix2Pix)",
    9: "an inpainting checkpoint",
}
"""What a checkpoint is whose network reads more channels than the latents' four."""


def checkpoint_family(shapes: Shapes) -> StableDiffusionFamily:
    """The family of a checkpoint.

    Raises:
        Unrecognised: it is a checkpoint of another family, or not whole.
    """
    first = shapes.get(f"{network_prefix(shapes)}input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else 4
    if channels != 4:
        said = _BY_CHANNELS.get(channels, "a checkpoint")
        raise Unrecognised(f"it is {said} whose network reads {channels} channels; 4 are supported")
    outer = wrapper(shapes)
    inner = {key.removeprefix(outer) for key in shapes}
    if _has(inner, "conditioner.embedders.0.model.") and not _has(inner, "conditioner.embedders.1."):
        raise Unrecognised("it is the SDXL refiner; this server draws with SDXL's base")
    if _has(inner, "cond_stage_model.model."):
        raise Unrecognised("it belongs to Stable Diffusion 2; this server draws with SD1.5 and SDXL")
    if _has(inner, "embedder.model.") or _has(inner, "noise_augmentor."):
        raise Unrecognised("it is Stable unCLIP; this server draws with SD1.5 and SDXL")
    if not _has(inner, "first_stage_model."):
        raise Unrecognised("it is a checkpoint without its VAE")
    if _has(inner, "conditioner.embedders.1."):
        if not _has(inner, "conditioner.embedders.0."):
            raise Unrecognised("it is a checkpoint without its first text encoder")
        return "sdxl"
    if _has(inner, "cond_stage_model.transformer.") or _has(inner, "conditioner.embedders.0.transformer."):
        return "sd15"
    raise Unrecognised("it is a checkpoint without its text encoder")


def _has(names: set[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
