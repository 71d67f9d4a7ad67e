"""The small checkpoint of the SDXL family, whose networks `pipelines.demo.training.recipes.sdxl` trains."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from pipelines.demo.checkpoints import sd15
from pipelines.demo.checkpoints.autoencoder import large_autoencoder
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.checkpoints.schedule import SCHEDULE
from pipelines.demo.checkpoints.sdxl_unet import trained_unet
from pipelines.demo.checkpoints.words import word_tokenizer

TEXT_WIDTH = 2 * sd15.TEXT_WIDTH
"""The width of the states of both text encoders together."""


def build(folder: Path) -> None:
    """Write ``sdxl`` under ``folder``."""
    StableDiffusionXLPipeline(
        vae=large_autoencoder(),
        text_encoder=sd15.trained_text_encoder(),
        text_encoder_2=load_trained(text_encoder_2(), "sdxl", "text_encoder_2"),
        tokenizer=word_tokenizer(),
        tokenizer_2=tokenizer_2(),
        unet=trained_unet("sdxl", TEXT_WIDTH),
        scheduler=EulerDiscreteScheduler.from_config(SCHEDULE),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder / "sdxl")


def text_encoder_2() -> CLIPTextModelWithProjection:
    """The untrained second text encoder."""
    return CLIPTextModelWithProjection(sd15.text_config())


@cache
def tokenizer_2() -> CLIPTokenizer:
    """The second tokenizer, which fills short prompts up with another token, as the published one does."""
    tokenizer = copy.deepcopy(word_tokenizer())
    tokenizer.pad_token = "!"
    return tokenizer
