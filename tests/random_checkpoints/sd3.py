"""The small checkpoint of SD3-medium and its pose ControlNet."""

from __future__ import annotations

from pathlib import Path

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipelines.demo.checkpoints.parts import byte_level_tokenizer, fill

_CLIP_WIDTH = 32
_T5_WIDTH = 64
"""The width of T5's hidden states: at least both CLIP widths together, whose states are padded to it."""

_TRANSFORMER = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 32,
    "num_attention_heads": 1,
    "joint_attention_dim": _T5_WIDTH,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 2 * _CLIP_WIDTH,
    "pos_embed_max_size": 192,
}
"""What the transformer and its ControlNet share. One head: attention over 4,096 patches takes longest."""


def build(folder: Path) -> None:
    """Write ``folder/sd3`` and ``folder/sd3_pose_controlnet`` in diffusers' layout, always the same bytes."""
    StableDiffusion3Pipeline(
        transformer=_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=_clip(seed=3),
        tokenizer=byte_level_tokenizer(),
        text_encoder_2=_clip(seed=4),
        tokenizer_2=byte_level_tokenizer(),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_tokenizer(),
    ).save_pretrained(folder / "sd3")
    _controlnet().save_pretrained(folder / "sd3_pose_controlnet")


def _transformer() -> SD3Transformer2DModel:
    transformer = SD3Transformer2DModel(num_layers=2, **_TRANSFORMER)
    fill(transformer, seed=1)
    return transformer


def _controlnet() -> SD3ControlNetModel:
    """A fresh ControlNet's output layers are zero; `fill` gives them weight, so that a pose has an effect."""
    controlnet = SD3ControlNetModel(num_layers=1, **_TRANSFORMER)
    fill(controlnet, seed=6)
    return controlnet


def _vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        sample_size=1024,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    fill(vae, seed=2)
    return vae


def _clip(seed: int) -> CLIPTextModelWithProjection:
    tokenizer = byte_level_tokenizer()
    text_encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_CLIP_WIDTH,
            intermediate_size=2 * _CLIP_WIDTH,
            projection_dim=_CLIP_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    fill(text_encoder, seed=seed)
    return text_encoder


def _t5() -> T5EncoderModel:
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(_t5_tokenizer()),
            d_model=_T5_WIDTH,
            d_kv=16,
            d_ff=2 * _T5_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    ).eval()
    fill(text_encoder, seed=5)
    return text_encoder


def _t5_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer over single characters of ASCII; whatever else a prompt holds becomes ``<unk>``."""
    characters = ["\u2581", *map(chr, range(ord("!"), ord("~") + 1))]
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((character, -5.0) for character in characters),
    ]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
