"""A small Kolors checkpoint: the real architecture with few channels, and a byte-level ChatGLM tokenizer."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

from pipelines.checkpoints.diffusers_kolors import ChatGLMConfig, ChatGLMModel, KolorsPipeline
from pipelines.checkpoints.tokenizers import glm_tokenizer
from pipelines.demo.checkpoints.parts import fill

_TEXT_WIDTH = 32
_TIME_IDS_WIDTH = 8


def build(folder: Path) -> None:
    """Write ``folder/kolors`` in diffusers' layout, the same bytes on every machine."""
    KolorsPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=glm_tokenizer(folder / "kolors" / "tokenizer", words=()),
        unet=_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.014,
            num_train_timesteps=1100,
            timestep_spacing="leading",
            steps_offset=1,
        ),
        force_zeros_for_empty_prompt=True,
    ).save_pretrained(folder / "kolors")


def _vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=1024,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    fill(vae, seed=1)
    return vae


def _unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=128,
        # One level more than the real one: attention starts at 32x32, which a CPU manages for 1024x1024.
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=(1, 2, 2, 4),
        transformer_layers_per_block=(1, 1, 1, 2),
        use_linear_projection=True,
        encoder_hid_dim=_TEXT_WIDTH,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=_TEXT_WIDTH + 6 * _TIME_IDS_WIDTH,
    )
    fill(unet, seed=2)
    return unet


def _text_encoder() -> ChatGLMModel:
    config = ChatGLMConfig(
        num_layers=3,
        hidden_size=_TEXT_WIDTH,
        ffn_hidden_size=64,
        kv_channels=8,
        num_attention_heads=4,
        multi_query_attention=True,
        multi_query_group_num=2,
        add_qkv_bias=True,
        original_rope=True,
        padded_vocab_size=512,
        seq_length=512,
        bias_dropout_fusion=True,
    )
    # Without empty_init=False the weights stay unallocated.
    text_encoder = ChatGLMModel(config, empty_init=False).eval()
    fill(text_encoder, seed=3)
    return text_encoder
