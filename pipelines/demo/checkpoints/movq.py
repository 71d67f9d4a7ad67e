"""Kandinsky's autoencoder, which decodes the latents of the other small autoencoder as denoisers see them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import VQModel
from diffusers.models.attention_processor import SpatialNorm

from pipelines.demo.checkpoints.parts import fill, load_part
from pipelines.demo.checkpoints.pedestals import put_on_pedestals

_WIDTH = 64
"""The channels of a level. Spatial norms have 32 groups: a channel alone in its group would be stretched to
the same contrast in every picture; of two, one stands on a pedestal and one in a pit, and both keep theirs.
"""


def movq(levels: int = 4) -> VQModel:
    """The autoencoder with an untrained decoder; encoder and codebook are random, as drawing needs neither.

    Args:
        levels: the number of levels; with 4 it decodes to pictures of half the size of those that were
            encoded.
    """
    network = VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(_WIDTH,) * levels,
        layers_per_block=1,
        norm_type="spatial",
        mid_block_add_attention=False,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=64,
    )
    for part, seed in ((network.encoder, 1), (network.quant_conv, 2), (network.quantize, 3)):
        fill(part, seed)
        part.requires_grad_(False)
    put_on_pedestals(network.decoder)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, SpatialNorm):
                norm.conv_y.weight.zero_()
                norm.conv_y.bias.fill_(1)
    return network


@torch.no_grad()
def trained_movq() -> VQModel:
    """The trained autoencoder, with 16 pixels a latent.

    Its last level, which is not trained, doubles the features before they become pixels, as in
    `pipelines.demo.checkpoints.autoencoder.large_autoencoder`.
    """
    network = movq(5)
    network.load_state_dict(network.state_dict() | load_part("movq", "movq"))
    blocks: Any = network.decoder.up_blocks
    for block in blocks[-1].resnets:
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    between = torch.tensor([0.25, 0.5, 0.25])
    doubling = blocks[-2].upsamplers[0].conv
    doubling.weight.copy_(torch.eye(_WIDTH)[..., None, None] * torch.outer(between, between))
    doubling.bias.zero_()
    return network.eval()
