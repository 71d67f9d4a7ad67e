"""A small Kandinsky 2.2 checkpoint, prior and decoder, of the published shape with few channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    DDPMScheduler,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.schedulers import UnCLIPScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from pipelines.demo.checkpoints.parts import byte_level_tokenizer, fill

_EMBEDDING_WIDTH = 32
"""The width of image embeddings, text embeddings and hidden states, which the prior needs equal."""


def build(folder: Path) -> None:
    """Write ``kandinsky22/prior`` and ``kandinsky22/decoder`` in diffusers' layout; always the same bytes."""
    tokenizer = byte_level_tokenizer()
    KandinskyV22PriorPipeline(
        prior=_prior(),
        image_encoder=_image_encoder(),
        text_encoder=_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        image_processor=CLIPImageProcessor(crop_size=32, size={"shortest_edge": 32}),
    ).save_pretrained(folder / "kandinsky22" / "prior")
    KandinskyV22Pipeline(
        unet=_unet(),
        scheduler=DDPMScheduler(
            beta_schedule="linear",
            beta_start=0.00085,
            beta_end=0.012,
            variance_type="learned_range",
            clip_sample_range=2.0,
            sample_max_value=2.0,
            thresholding=True,
        ),
        movq=_movq(),
    ).save_pretrained(folder / "kandinsky22" / "decoder")


def _prior() -> PriorTransformer:
    prior = PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=2,
        embedding_dim=_EMBEDDING_WIDTH,
        num_embeddings=77,
        additional_embeddings=4,
    )
    fill(prior, seed=11)
    # Not weights but the statistics that turn the prior's output into an image embedding.
    with torch.no_grad():
        prior.clip_mean.fill_(0.0)
        prior.clip_std.fill_(1.0)
    return prior


def _text_encoder(vocabulary: int) -> CLIPTextModelWithProjection:
    text_encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=_EMBEDDING_WIDTH,
            projection_dim=_EMBEDDING_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    ).eval()
    fill(text_encoder, seed=12)
    return text_encoder


def _image_encoder() -> CLIPVisionModelWithProjection:
    image_encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_EMBEDDING_WIDTH,
            projection_dim=_EMBEDDING_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
    ).eval()
    fill(image_encoder, seed=13)
    return image_encoder


def _unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        block_out_channels=(16, 16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=16,
        cross_attention_dim=32,
        encoder_hid_dim=_EMBEDDING_WIDTH,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        addition_embed_type_num_heads=4,
    )
    fill(unet, seed=14)
    return unet


def _movq() -> VQModel:
    movq = VQModel(
        down_block_types=(*("DownEncoderBlock2D",) * 3, "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3),
        block_out_channels=(32, 32, 32, 32),  # spatial norms have 32 groups, whatever norm_num_groups says
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=64,
    )
    fill(movq, seed=15)
    return movq
