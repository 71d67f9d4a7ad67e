"""What pictures suffer on their way: each takes a picture and gives a worse one of the same size."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

Change = Callable[[Image.Image], Image.Image]


def jpeg(picture: Image.Image) -> Image.Image:
    """The picture, stored at quality 60."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def noise(picture: Image.Image) -> Image.Image:
    """The picture with Gaussian noise, whose deviation is 12 of 255."""
    pixels = np.asarray(picture, dtype=float)
    pixels = pixels + np.random.default_rng(0).normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def blur(picture: Image.Image) -> Image.Image:
    """The picture, blurred by 1.5 pixels."""
    return picture.filter(ImageFilter.GaussianBlur(1.5))


def other_colors(picture: Image.Image) -> Image.Image:
    """The picture, whose colours are off by 10 of 255 in each channel."""
    pixels = np.asarray(picture, dtype=int) + np.array([10, -10, 10])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


SPOILED: tuple[Change, ...] = (jpeg, noise, blur, other_colors)
