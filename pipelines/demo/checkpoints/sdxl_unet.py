"""UNets of the SDXL architecture that draw with the SD1.5 network's weights.

They are given the picture's size and read other text encoders. The layers for that have weights of their
own; all other weights are those of ``weights/sd15.safetensors``.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from pipelines.demo.checkpoints import sd15
from pipelines.demo.checkpoints.parts import load_part

POOLED_WIDTH = 64
"""The width of the embedding of a whole text."""
_SIZE_WIDTH = 8
_OWN = ("add_embedding", "encoder_hid_proj", "attn2.to_k", "attn2.to_v")


def unet(text_width: int, **config: object) -> UNet2DConditionModel:
    """The UNet before its training: it ignores the picture's size and reads texts as SD1.5's UNet does."""
    network = UNet2DConditionModel(
        sample_size=32,
        cross_attention_dim=text_width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * _SIZE_WIDTH,
        **sd15.UNET,
        **config,
    )
    known = load_part("sd15", "unet")
    network.load_state_dict(
        {name: _fitted(known.get(name), tensor) for name, tensor in network.state_dict().items()}
    )
    torch.nn.init.zeros_(network.add_embedding.linear_2.weight)
    torch.nn.init.zeros_(network.add_embedding.linear_2.bias)
    return network


def is_own(name: str) -> bool:
    """Whether a weight of that name is not one of the SD1.5 network's."""
    return any(part in name for part in _OWN)


def trained_unet(file: str, text_width: int, **config: object) -> UNet2DConditionModel:
    """The UNet of `unet` with its own weights from ``weights/<file>.safetensors``."""
    network = unet(text_width, **config)
    network.load_state_dict(network.state_dict() | load_part(file, "unet"))
    return network.eval()


def _fitted(known: Tensor | None, own: Tensor) -> Tensor:
    """A weight of SD1.5 in the shape of another; of a wider text's columns only the last are known."""
    if known is None:
        return own
    known = known.reshape(known.shape[: own.ndim])
    fitted = torch.zeros_like(own)
    fitted[..., -known.shape[-1] :] = known
    return fitted
