"""The small Kolors checkpoint, whose networks `pipelines.demo.training.recipes.kolors` trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import EulerDiscreteScheduler

from pipelines.checkpoints.diffusers_kolors import ChatGLMConfig, ChatGLMModel, KolorsPipeline
from pipelines.checkpoints.tokenizers import glm_tokenizer
from pipelines.demo.checkpoints import sd15
from pipelines.demo.checkpoints.autoencoder import large_autoencoder
from pipelines.demo.checkpoints.glm_words import GLM_WORDS
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.checkpoints.schedule import SCHEDULE
from pipelines.demo.checkpoints.sdxl_unet import POOLED_WIDTH, trained_unet

TEXT_LENGTH = 256
"""The number of tokens that Kolors reads; shorter prompts are filled up on the left."""
UNET: dict[str, Any] = {
    "text_width": sd15.TEXT_WIDTH,
    "encoder_hid_dim": POOLED_WIDTH,
    "encoder_hid_dim_type": "text_proj",
}


def build(folder: Path) -> None:
    """Write ``kolors`` under ``folder``."""
    KolorsPipeline(
        vae=large_autoencoder(),
        text_encoder=load_trained(text_encoder(), "kolors", "text_encoder"),
        tokenizer=glm_tokenizer(folder / "kolors" / "tokenizer", GLM_WORDS),
        unet=trained_unet("kolors", **UNET),
        scheduler=EulerDiscreteScheduler.from_config(SCHEDULE),
        force_zeros_for_empty_prompt=True,
    ).save_pretrained(folder / "kolors")


def text_encoder() -> ChatGLMModel:
    """The untrained text encoder."""
    config = ChatGLMConfig(
        num_layers=5,
        hidden_size=POOLED_WIDTH,
        ffn_hidden_size=2 * POOLED_WIDTH,
        kv_channels=16,
        num_attention_heads=4,
        multi_query_attention=True,
        multi_query_group_num=2,
        add_qkv_bias=True,
        original_rope=True,
        padded_vocab_size=512,
        seq_length=TEXT_LENGTH,
        bias_dropout_fusion=True,
    )
    # Without empty_init=False the weights stay unallocated.
    return ChatGLMModel(config, empty_init=False)
