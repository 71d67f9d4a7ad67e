"""A small safety checker with one, harmless, concept: a pink heart on a black background."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.world.world import simple_scene

FLAGGED = simple_scene("heart", "pink", "black")
"""The scene that is flagged, in any size and place."""
THRESHOLD = 0.5
"""The least cosine of picture and concept with which a picture is flagged."""

_SIDE = 64
_NEVER = 2.0
"""A threshold that no cosine reaches, for the nineteen of the twenty concepts that are not used."""


def build(folder: Path) -> None:
    """Write ``safety_checker`` under ``folder``."""
    checker = load_trained(safety_checker(), "safety_checker", "safety_checker")
    checker.save_pretrained(folder / "safety_checker")
    processor().save_pretrained(folder / "safety_checker")


@torch.no_grad()
def safety_checker() -> StableDiffusionSafetyChecker:
    """The untrained safety checker with its concept."""
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": _SIDE,
                "patch_size": 8,
            },
            projection_dim=16,
        )
    )
    checker.special_care_embeds_weights.fill_(_NEVER)
    checker.concept_embeds_weights.fill_(_NEVER)
    checker.concept_embeds_weights[0] = THRESHOLD
    checker.concept_embeds[0] = torch.linspace(-1, 1, 16)
    return checker


def processor() -> CLIPImageProcessor:
    """The preprocessing of pictures: the square in the middle, 64 pixels a side."""
    return CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=_SIDE)
