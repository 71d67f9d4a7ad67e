"""The small Kandinsky 2.2 checkpoint, prior and decoder.

The embedding of a picture is the text encoder's embedding of its canonical caption. The prior finds it for
any prompt, the image encoder for a picture, and the decoder's UNet draws it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDPMScheduler,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UNet2DConditionModel,
)
from diffusers.schedulers import UnCLIPScheduler
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from pipelines.demo.checkpoints.movq import trained_movq
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.checkpoints.schedule import SCHEDULE
from pipelines.demo.checkpoints.sd15 import TEXT_WIDTH, trained_projecting_text_encoder
from pipelines.demo.checkpoints.words import word_tokenizer

EMBEDDING_WIDTH = TEXT_WIDTH
"""The width of image embeddings, text embeddings and text encoder states: the prior needs them equal."""
IMAGE_SIDE = 64
"""The pixels a side of pictures for the image encoder."""
CLIP_SAMPLE_RANGE = 10.0
"""The bound of the prior's embeddings, in standard deviations; guidance leads to none that is so far off."""


def build(folder: Path) -> None:
    """Write ``kandinsky22/prior`` and ``kandinsky22/decoder`` under ``folder``."""
    KandinskyV22PriorPipeline(
        prior=load_trained(prior(), "kandinsky_prior", "prior"),
        image_encoder=load_trained(image_encoder(), "clip_image", "image_encoder"),
        text_encoder=trained_projecting_text_encoder(),
        tokenizer=word_tokenizer(),
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=CLIP_SAMPLE_RANGE),
        image_processor=CLIPImageProcessor(crop_size=IMAGE_SIDE, size={"shortest_edge": IMAGE_SIDE}),
    ).save_pretrained(folder / "kandinsky22" / "prior")
    KandinskyV22Pipeline(
        unet=load_trained(unet(), "kandinsky22", "unet"),
        scheduler=DDPMScheduler.from_config(SCHEDULE, variance_type="learned_range"),
        movq=trained_movq(),
    ).save_pretrained(folder / "kandinsky22" / "decoder")


def prior() -> PriorTransformer:
    """The untrained prior; its mean and deviation of embeddings have to be filled in."""
    network = PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=EMBEDDING_WIDTH // 4,
        num_layers=3,
        embedding_dim=EMBEDDING_WIDTH,
        num_embeddings=77,
        additional_embeddings=4,
    )
    for statistics in (network.clip_mean, network.clip_std):
        statistics.requires_grad_(False)
    return network


def image_encoder() -> CLIPVisionModelWithProjection:
    """The untrained image encoder."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=EMBEDDING_WIDTH,
            projection_dim=EMBEDDING_WIDTH,
            intermediate_size=2 * EMBEDDING_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIDE,
            patch_size=8,
        )
    )


UNET: dict[str, Any] = {
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 2),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 2, "ResnetUpsampleBlock2D"),
    "block_out_channels": (48, 72, 96),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 24,
    "resnet_time_scale_shift": "scale_shift",
}


@torch.no_grad()
def unet() -> UNet2DConditionModel:
    """The untrained UNet. Its variance is always the least of its range, which training does not change."""
    network: Any = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=EMBEDDING_WIDTH,
        encoder_hid_dim=EMBEDDING_WIDTH,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        **UNET,
    )
    network.conv_out.weight[4:] = 0
    network.conv_out.bias[4:] = -1
    return network
