"""Turn pictures into numbers and back: 8-bit pixels, the networks' -1 .. 1, and latents."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from pipelines.errors import NumbersOutOfRange
from pipelines.image_io import RGBImage, from_pil, to_pil


def rows_of(image: RGBImage) -> np.ndarray:
    """The picture as (height, width, 3) bytes; they cannot be written to."""
    return np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.height, image.width, 3)


def from_image(image: RGBImage, height: int, width: int) -> Tensor:
    """The picture as (1, 3, height, width) in -1 .. 1, fp32 on the CPU.

    A picture that is smaller than that is filled with its last row and column.
    """
    return 2.0 * _scaled(image, height, width) - 1.0


def control_tensor(image: RGBImage, height: int, width: int) -> Tensor:
    """The picture as (1, 3, height, width) in 0 .. 1, for ControlNets; filled like `from_image`."""
    return _scaled(image, height, width).contiguous()


def _scaled(image: RGBImage, height: int, width: int) -> Tensor:
    rows = np.pad(rows_of(image), ((0, height - image.height), (0, width - image.width), (0, 0)), mode="edge")
    scaled = rows[None].astype(np.float32) / 255.0
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def from_mask(mask: RGBImage, height: int, width: int) -> Tensor:
    """The mask as (1, 1, height, width), 1 where it is at least half bright; filled like `from_image`."""
    return (from_image(from_pil(to_pil(mask).convert("L")), height, width)[:, :1] >= 0.0).float()


def to_image(pixels: Tensor, height: int, width: int) -> RGBImage:
    """The picture of the top left ``height`` x ``width`` of (1, 3, H, W) in -1 .. 1, rounded as by diffusers.

    Raises:
        NumbersOutOfRange: some of it is not finite.
    """
    return rounded(pixels[0, :, :height, :width] * 0.5 + 0.5)


def rounded(pixels: Tensor) -> RGBImage:
    """The picture of (3, H, W) around 0 .. 1.

    Raises:
        NumbersOutOfRange: some of it is not finite, which would be shown as black or white.
    """
    if not bool(pixels.isfinite().all()):
        raise NumbersOutOfRange
    rows = (pixels.clamp(0, 1).permute(1, 2, 0).float() * 255).round().to(torch.uint8).cpu()
    return RGBImage(rows.shape[1], rows.shape[0], rows.contiguous().numpy().tobytes())


def per_latent(vae: AutoencoderKL) -> int:
    """The pixels along one side of a latent."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def encode(vae: AutoencoderKL, pixels: Tensor, *, upcast: bool = False) -> DiagonalGaussianDistribution:
    """The distribution of the latents of (1, 3, H, W) in -1 .. 1, without the VAE's scaling factor.

    Args:
        upcast: encode in fp32 whatever the network's type.
    """
    with _precision(vae, torch.float32 if upcast else vae.dtype):
        return vae.encode(pixels.to(vae.device, vae.dtype), return_dict=False)[0]


def decode(vae: AutoencoderKL, latents: Tensor, *, upcast: bool = False) -> Tensor:
    """The pixels of one picture's latents, (1, 3, H, W) around -1 .. 1.

    Args:
        upcast: decode in fp32 whatever the network's type. Also done when half precision overflows, which
            would leave black pixels.
    """
    factor = vae.config["scaling_factor"]
    if not (upcast and vae.dtype == torch.float16):
        pixels = vae.decode((latents / factor).to(vae.dtype), return_dict=False)[0]
        if pixels.dtype != torch.float16 or bool(torch.isfinite(pixels).all()):
            return pixels
    with _precision(vae, torch.float32):
        return vae.decode(latents.float() / factor, return_dict=False)[0]


@contextmanager
def _precision(vae: AutoencoderKL, dtype: torch.dtype) -> Generator[None]:
    """Give a VAE another type for a block, in place: whoever else has the network finds it as it was."""
    own = vae.dtype
    # Not by vae.to(), which warns in the log each time.
    torch.nn.Module.to(vae, dtype=dtype)
    try:
        yield
    finally:
        torch.nn.Module.to(vae, dtype=own)
