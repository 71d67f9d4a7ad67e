"""The small checkpoint of the SD1.5 family, whose networks `pipelines.demo.training.recipes.sd15` trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.demo.checkpoints import sd15_adapters
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.checkpoints.schedule import SCHEDULE
from pipelines.demo.checkpoints.words import word_tokenizer

TEXT_WIDTH = 64
UNET: dict[str, Any] = {
    "block_out_channels": (48, 72, 96),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
"""The configuration of the UNet, which reads the prompt at every level, even the coarsest one."""


def build(folder: Path) -> None:
    """Write ``sd15`` and ``sd15_adapters`` under ``folder``."""
    StableDiffusionPipeline(
        vae=trained_autoencoder(),
        text_encoder=trained_text_encoder(),
        tokenizer=word_tokenizer(),
        unet=load_trained(unet(), "sd15", "unet"),
        scheduler=DPMSolverMultistepScheduler.from_config(SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "sd15")
    sd15_adapters.build(folder)


def text_encoder() -> CLIPTextModel:
    """The untrained text encoder, with as many layers as the real one for the range of ``clip_skip``.

    Many layers learn slowly together; at first each of these returns its input.
    """
    encoder = CLIPTextModel(text_config())
    layers: Any = encoder.encoder.layers
    for layer in layers:
        torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
        torch.nn.init.zeros_(layer.mlp.fc2.weight)
    return encoder


def trained_text_encoder() -> CLIPTextModel:
    """The trained text encoder, by which other families read prompts, too."""
    return load_trained(text_encoder(), "clip_text", "text_encoder")


def trained_projecting_text_encoder() -> CLIPTextModelWithProjection:
    """The trained text encoder with a projection that returns its state at the end of the text."""
    encoder = CLIPTextModelWithProjection(text_config())
    encoder.text_model.load_state_dict(trained_text_encoder().state_dict())
    torch.nn.init.eye_(encoder.text_projection.weight)
    return encoder.eval()


def text_config(**changes: Any) -> CLIPTextConfig:
    """The configuration of a text encoder that reads the tokens of `word_tokenizer`."""
    tokenizer = word_tokenizer()
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "projection_dim": TEXT_WIDTH,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(**values | changes)


def unet() -> UNet2DConditionModel:
    """The untrained UNet."""
    return UNet2DConditionModel(sample_size=32, cross_attention_dim=TEXT_WIDTH, **UNET)
