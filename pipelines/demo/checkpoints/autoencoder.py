"""The autoencoders of the small checkpoints."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from diffusers import AutoencoderKL

from pipelines.demo.checkpoints.parts import load_part, load_trained, metadata_of
from pipelines.demo.checkpoints.pedestals import put_on_pedestals

_CHANNELS = (16, 32, 48, 64, 64)
_SIGNS = [[(-1) ** bin(row & column).count("1") for column in (1, 2, 4, 8)] for row in range(16)]
"""Four columns of a Hadamard matrix, which are at right angles to each other."""
_LOG_VARIANCE = -8.0
"""The logarithm of the variance of the noise that an encoder adds to latents."""


def autoencoder(**config: object) -> AutoencoderKL:
    """The untrained autoencoder: 16 pixels a latent, for pictures of about 512 pixels a side."""
    return _autoencoder(_CHANNELS, sample_size=512, **config)


def trained_autoencoder() -> AutoencoderKL:
    """The trained autoencoder, whose scaled latents have a standard deviation of 1."""
    return load_trained(autoencoder(scaling_factor=_factor(), force_upcast=False), "autoencoder", "vae")


def large_autoencoder() -> AutoencoderKL:
    """The trained autoencoder with 32 pixels a latent, for pictures of about 1024 pixels a side.

    It halves a picture before `trained_autoencoder` encodes it, and doubles the features before they become
    pixels again, so that its latents are those of a picture half as large. The rest of its outermost level
    is the identity.
    """
    vae = _autoencoder((_CHANNELS[0], *_CHANNELS), sample_size=1024, scaling_factor=_factor())
    known = {_one_level_deeper(name): tensor for name, tensor in load_part("autoencoder", "vae").items()}
    vae.load_state_dict(vae.state_dict() | known)
    first: Any = vae.encoder.down_blocks[0]
    last_but_one, last = cast("tuple[Any, Any]", tuple(vae.decoder.up_blocks[-2:]))
    same = torch.eye(_CHANNELS[0])[..., None, None]
    between = torch.tensor([0.25, 0.5, 0.25])
    with torch.no_grad():
        for block in (*first.resnets, *last.resnets):
            for convolution in (block.conv1, block.conv2):
                convolution.weight.zero_()
                convolution.bias.zero_()
        halving = first.downsamplers[0].conv
        halving.weight.zero_()
        halving.weight[:, :, :2, :2] = same / 4
        halving.bias.zero_()
        doubling = last_but_one.upsamplers[0].conv
        doubling.weight.copy_(same * torch.outer(between, between))
        doubling.bias.zero_()
    return vae.eval()


@torch.no_grad()
def with_sixteen_channels(vae: AutoencoderKL) -> AutoencoderKL:
    """The same autoencoder with SD3's latents: 16 channels, and no convolutions of one pixel beside them.

    The 16 channels are the four channels in other coordinates, each a sum or difference of all four. Noise
    that is equally strong in all sixteen is then equally strong in the four, and half as strong.
    """
    config: dict[str, Any] = {
        "scaling_factor": vae.config["scaling_factor"],
        "shift_factor": 0.0,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    widened = _autoencoder(
        tuple(vae.config["block_out_channels"]), sample_size=vae.config["sample_size"], **config
    )
    known = {name: tensor for name, tensor in vae.state_dict().items() if "quant_conv" not in name}
    turned = torch.tensor(_SIGNS).float() / 2
    # What follows a convolution point by point can be done by the convolution.
    quant, post_quant = cast("tuple[Any, Any]", (vae.quant_conv, vae.post_quant_conv))
    means, back = quant.weight[:4, :, 0, 0], post_quant.weight[:, :, 0, 0]
    offset = quant.bias[:4] + torch.linalg.solve(back, post_quant.bias)
    weight = torch.einsum("oz,zi,ihwk->ohwk", turned, means, known["encoder.conv_out.weight"])
    bias = turned @ (means @ known["encoder.conv_out.bias"] + offset)
    known["encoder.conv_out.weight"] = torch.cat([weight, torch.zeros_like(weight)])
    known["encoder.conv_out.bias"] = torch.cat([bias, torch.full_like(bias, _LOG_VARIANCE)])
    known["decoder.conv_in.weight"] = torch.einsum(
        "oihw,iz,cz->ochw", known["decoder.conv_in.weight"], back, turned / 4
    )
    widened.load_state_dict(known)
    return widened.eval()


def _one_level_deeper(name: str) -> str:
    """The large autoencoder's name for a weight of the other one; encoders count levels from the picture."""
    return re.sub(r"(?<=encoder\.down_blocks\.)\d", lambda level: str(int(level[0]) + 1), name)


def _autoencoder(channels: tuple[int, ...], **config: object) -> AutoencoderKL:
    """An autoencoder without attention, so that memory grows only with the picture's area."""
    vae = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        norm_num_groups=4,
        mid_block_add_attention=False,
        **config,
    )
    put_on_pedestals(vae)
    return vae


def _factor() -> float:
    return float(metadata_of("autoencoder")["scaling_factor"])
