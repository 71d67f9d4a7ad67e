"""A small safety checker with one concept: red. What else it is shown, it lets pass."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from pipelines.demo.checkpoints.parts import fill

_SIDE = 32
_LIKENESS = 0.9
"""Cosine from which on a picture counts as red."""
_NEVER = 2.0
"""No cosine is as large: of the twenty concepts that the class has one is used."""


def build(folder: Path) -> None:
    """Write ``safety_checker`` under ``folder``."""
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": _SIDE,
                "patch_size": 8,
            },
            projection_dim=16,
        )
    ).eval()
    fill(checker, 61)
    processor = CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=_SIDE)
    with torch.no_grad():
        seen = processor(Image.new("RGB", (_SIDE, _SIDE), "red"), return_tensors="pt").pixel_values
        red = checker.visual_projection(checker.vision_model(seen)[1])[0]
        checker.special_care_embeds_weights.fill_(_NEVER)
        checker.concept_embeds_weights.fill_(_NEVER)
        checker.concept_embeds_weights[0] = _LIKENESS
        # Rounded, so that all machines write the same bytes.
        checker.concept_embeds[0] = (red * 64).round() / 64
    checker.save_pretrained(folder / "safety_checker")
    processor.save_pretrained(folder / "safety_checker")
