"""Recognise a .safetensors file from its tensors' names and shapes alone. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.weights.adapter_recognition import demand_usable_lora, is_lora, lora_family
from pipelines.weights.checkpoint_recognition import checkpoint_family
from pipelines.weights.embedding_names import embedding_family
from pipelines.weights.foreign_networks import foreign_network
from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.kinds import Kind, StableDiffusionFamily
from pipelines.weights.layouts.checkpoint import is_checkpoint, network_prefix
from pipelines.weights.network_recognition import controlnet_family, is_controlnet, is_vae

_FOREIGN_MARKS = (
    ("double_blocks", "Flux"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("single_transformer_blocks", "Flux"),
    ("joint_transformer_blocks", "Stable Diffusion 3"),
    ("lora_transformer_", "a transformer (Flux, Stable Diffusion 3)"),
    ("transformer.transformer_blocks", "a transformer (Flux, Stable Diffusion 3)"),
)
"""A part of a tensor's name, and the family that this server does not have in which it occurs."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The kind and family of a file; the family is None for what both families have alike."""

    kind: Kind
    family: StableDiffusionFamily | None


def recognise(shapes: Shapes) -> Recognised:
    """Tell kind and family of a file from its tensors.

    Raises:
        Unrecognised: the tensors belong to another family, or to nothing that is known here.
    """
    if not shapes:
        raise Unrecognised("it holds no tensors")
    for mark, name in _FOREIGN_MARKS:
        if any(mark in key for key in shapes):
            raise Unrecognised(f"it belongs to {name}; this server draws with SD1.5 and SDXL")
    demand_usable_lora(shapes)
    if is_lora(shapes):
        return Recognised("lora", lora_family(shapes))
    foreign = foreign_network(_told_by(shapes))
    if foreign is not None:
        raise Unrecognised(f"it is {foreign}")
    if is_controlnet(shapes):
        return Recognised("controlnet", controlnet_family(shapes))
    if is_checkpoint(shapes):
        return Recognised("checkpoint", checkpoint_family(shapes))
    if is_vae(shapes):
        return Recognised("vae", None)
    embedded = embedding_family(shapes)
    if embedded is not None:
        return Recognised("embedding", embedded)
    if any(key.startswith(("down_blocks.", "input_blocks.", "conv_in.")) for key in shapes):
        raise Unrecognised("it is one network of a checkpoint; the whole checkpoint is needed")
    raise Unrecognised("it is not a checkpoint, LoRA, textual inversion, VAE or ControlNet")


def _told_by(shapes: Shapes) -> Iterable[str]:
    """The names that tell a network: of a whole checkpoint those of its UNet, whatever lies beside it."""
    if not is_checkpoint(shapes):
        return shapes
    prefix = network_prefix(shapes)
    return [name for name in shapes if name.startswith(prefix)]
