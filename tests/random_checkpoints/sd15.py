# (diffusers' annotations of tuples and optional parts are wrong.)
"""The small checkpoint of the SD1.5 family."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pipelines.demo.checkpoints.parts import byte_level_tokenizer, fill
from tests.random_checkpoints import sd15_adapters

_TEXT_WIDTH = 64

_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
"""The published checkpoint's. ``clip_sample`` means nothing to PNDM, but much to others that inherit it."""


def build(folder: Path) -> None:
    """Write ``sd15`` and ``sd15_adapters`` under ``folder``."""
    pipeline = StableDiffusionPipeline(
        vae=_vae(seed=13),
        text_encoder=_text_encoder(),
        tokenizer=byte_level_tokenizer(),
        unet=_unet(),
        scheduler=PNDMScheduler.from_config(_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "sd15")
    sd15_adapters.build(folder, pipeline, _vae(seed=14))


def _text_encoder() -> CLIPTextModel:
    """A text encoder of as many layers as the real one's, so that ``clip_skip`` has its documented range."""
    tokenizer = byte_level_tokenizer()
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=2 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=12,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    fill(model, 11)
    return model.eval()


def _unet() -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=1,
        norm_num_groups=8,
    )
    fill(model, 12)
    return model.eval()


def _vae(seed: int) -> AutoencoderKL:
    model = AutoencoderKL(
        sample_size=512,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.18215,
        force_upcast=False,
    )
    fill(model, seed)
    return model.eval()
