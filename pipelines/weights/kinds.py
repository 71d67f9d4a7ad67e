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


def default_dtype(family: StableDiffusionFamily, *, on_cpu: bool) -> Dtype:
    """The dtype of a checkpoint for which nobody has named one."""
    if on_cpu:
        return "float32"
    # SDXL's own VAE overflows half precision.
    return "bfloat16" if family == "sdxl" else "float16"
