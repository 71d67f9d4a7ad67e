"""The words that callers have for what they load, and what is made of each.

The vendor's own pages list, of `model_type`, huggingface, api_trained, custom_ckpt, lora, embeddings and
controlnet; of `model_category`, lora, stable_diffusion, stable_diffusion_xl, controlnet, embeddings and
vae; of `vae_type`, diffusers, safetensors and pt; of `revision`, fp16 and fp32. Dreambooth is seen in
clients, and the other words are inferred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator

from pipelines.weights.kinds import Kind, Precision, StableDiffusionFamily
from server.endpoints.enterprise.origins import MAIN


def _word(value: object) -> object:
    return re.sub(r"[\s.-]+", "_", value.strip().lower()) if isinstance(value, str) else value


ModelType = Annotated[
    Literal[
        "stable_diffusion", "stable_diffusion_xl", "checkpoint", "model", "sd", "sd15", "sdxl", "huggingface",
        "custom_ckpt", "api_trained", "dreambooth", "lora", "lycoris", "embeddings", "embedding",
        "textual_inversion", "vae", "controlnet",
    ],
    BeforeValidator(_word),
]  # fmt: skip
ModelFormat = Annotated[
    Literal["diffusers", "safetensors", "ckpt", "bin", "pt", "pth", "pickle"], BeforeValidator(_word)
]
VaeType = Annotated[
    Literal[
        "sd", "sd15", "sd1_5", "sdxl", "stable_diffusion", "stable_diffusion_xl", "vae", "diffusers",
        "safetensors", "pt",
    ],
    BeforeValidator(_word),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a word says of the thing that is loaded.

    Attributes:
        kind: the kind that it has to be; None where the word tells none.
        family: the family that it is said to be for; its tensors have the last word.
        suggested: the kind that the word lets one expect without saying so: where it comes from, or who made
            it. What it is instead is worth a warning.
    """

    kind: Kind | None = None
    family: StableDiffusionFamily | None = None
    suggested: Kind | None = None


MODEL_TYPES: Mapping[str, Meaning] = {
    **dict.fromkeys(("stable_diffusion", "checkpoint", "model", "sd"), Meaning("checkpoint")),
    "sd15": Meaning("checkpoint", "sd15"),
    **dict.fromkeys(("sdxl", "stable_diffusion_xl"), Meaning("checkpoint", "sdxl")),
    **dict.fromkeys(
        ("huggingface", "custom_ckpt", "api_trained", "dreambooth"), Meaning(suggested="checkpoint")
    ),
    **dict.fromkeys(("lora", "lycoris"), Meaning("lora")),
    **dict.fromkeys(("embeddings", "embedding", "textual_inversion"), Meaning("embedding")),
    "vae": Meaning("vae"),
    "controlnet": Meaning("controlnet"),
}

VAE_FAMILIES: Mapping[str, StableDiffusionFamily] = {
    "sdxl": "sdxl", "stable_diffusion_xl": "sdxl", "sd": "sd15", "sd15": "sd15", "sd1_5": "sd15",
}  # fmt: skip
"""The family of a VAE by those words of `vae_type` that tell one; the others tell a file's form."""

_PRECISIONS: Mapping[str, Precision] = {"fp16": "fp16", "fp32": "fp32", "bf16": "bf16"}

Revision: TypeAlias = tuple[Precision | None, str]
"""A precision, None where the caller leaves it open, and a branch, tag or commit."""


def read_revision(text: str) -> Revision:
    """The precision that `revision` names, on the main branch; or else a branch, tag or commit."""
    text = text.strip()
    precision = _PRECISIONS.get(text.lower())
    return (precision, MAIN) if precision else (None, text)
