# (diffusers' annotations of tuples and optional parts are wrong.)
"""The small checkpoint of the SDXL family."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.demo.checkpoints.parts import byte_level_tokenizer, fill

_TEXT_WIDTH = 32
_TEXT_WIDTH_2 = 64
_SIZE_WIDTH = 8

_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
    "clip_sample": False,
}
"""The published checkpoint's, with what only the schedulers that inherit it understand."""


def build(folder: Path) -> None:
    """Write ``sdxl`` under ``folder``."""
    second_tokenizer = byte_level_tokenizer()
    second_tokenizer.pad_token = "!"
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        text_encoder_2=_text_encoder_2(),
        tokenizer=byte_level_tokenizer(),
        tokenizer_2=second_tokenizer,
        unet=_unet(),
        scheduler=EulerDiscreteScheduler.from_config(_SCHEDULER),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder / "sdxl")


def _text_encoder() -> CLIPTextModel:
    model = CLIPTextModel(_text_config(_TEXT_WIDTH, "quick_gelu"))
    fill(model, 31)
    return model.eval()


def _text_encoder_2() -> CLIPTextModelWithProjection:
    model = CLIPTextModelWithProjection(_text_config(_TEXT_WIDTH_2, "gelu"))
    fill(model, 32)
    return model.eval()


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    """Twelve layers, so that ``clip_skip`` has its documented range."""
    tokenizer = byte_level_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=12,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unet() -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=_TEXT_WIDTH + _TEXT_WIDTH_2,
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=_TEXT_WIDTH_2 + 6 * _SIZE_WIDTH,
        norm_num_groups=8,
    )
    fill(model, 33)
    return model.eval()


def _vae() -> AutoencoderKL:
    model = AutoencoderKL(
        sample_size=1024,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    fill(model, 34)
    return model.eval()
