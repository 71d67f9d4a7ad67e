# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false
# (diffusers' annotations of tuples are wrong.)
"""The autoencoder of the small checkpoints: 16 pixels per latent."""

from __future__ import annotations

from diffusers import AutoencoderKL

from pipelines.demo.parts import said_of, trained
from pipelines.demo.pedestals import put_on_pedestals

_CHANNELS = (16, 32, 48, 64, 64)


def autoencoder(**config: object) -> AutoencoderKL:
    """Untrained. It has no attention, so that memory grows with the picture's area and no faster."""
    vae = AutoencoderKL(
        sample_size=512,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(_CHANNELS),
        norm_num_groups=4,
        mid_block_add_attention=False,
        **config,
    )
    put_on_pedestals(vae)
    return vae


def trained_autoencoder() -> AutoencoderKL:
    """Its scaled latents have a standard deviation of 1."""
    factor = float(said_of("autoencoder")["scaling_factor"])
    return trained(autoencoder(scaling_factor=factor, force_upcast=False), "autoencoder", "vae")
