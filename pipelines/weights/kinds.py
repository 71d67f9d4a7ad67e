"""Kinds, sections, families and dtypes: the words of weights.yaml, each listed once. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Family = Literal[
    "face_restorer",
    "kandinsky22",
    "kolors",
    "mbart50",
    "prompt_writer",
    "sd15",
    "sd3_pose",
    "sdxl",
    "upscaler",
]
"""The name of a model family is the name of its module in ``pipelines/families``."""

StableDiffusionFamily = Literal["sd15", "sdxl"]
"""A family for which adapters are made, and whose checkpoints can be loaded while the server runs."""

STABLE_DIFFUSION_FAMILIES: tuple[StableDiffusionFamily, ...] = get_args(StableDiffusionFamily)
"""The families of `StableDiffusionFamily`, SD1.5 first."""

Kind = Literal["checkpoint", "lora", "embedding", "vae", "controlnet"]
"""The kind of a thing that can be loaded while the server runs."""

Section = Literal["pipelines", "loras", "embeddings", "vaes", "controlnets"]
"""A section of weights.yaml whose entries can be loaded while the server runs."""

SECTIONS: Mapping[Kind, Section] = {
    "checkpoint": "pipelines",
    "lora": "loras",
    "embedding": "embeddings",
    "vae": "vaes",
    "controlnet": "controlnets",
}
"""The section of weights.yaml in which each kind stands."""

Dtype = Literal["float32", "float16", "bfloat16"]
"""The number format in which networks run, in torch's words."""

Quantization = Literal["int8", "int4"]
"""The bits in which a text encoder's large matrices may be kept, instead of its dtype."""

Precision = Literal["fp16", "bf16", "fp32"]
"""The precision that a caller names for what is loaded."""


def default_dtype(
    family: StableDiffusionFamily, *, on_cpu: bool, precision: Precision | None = None
) -> Dtype:
    """The dtype of a checkpoint that weights.yaml does not name.

    Args:
        precision: the precision that is asked for; None where the choice is left open.
    """
    if on_cpu or precision == "fp32":
        return "float32"
    if precision == "bf16":
        return "bfloat16"
    # SDXL's own VAE overflows half precision.
    return "bfloat16" if family == "sdxl" else "float16"
