# pyright: basic, reportAttributeAccessIssue=false
# (diffusers' networks declare other results than they give.)
"""A sheet of pictures of each training's networks, to be looked at by eye."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from pipelines.demo.autoencoder import trained_autoencoder
from pipelines.demo.world import STYLES, random_scene, render
from pipelines.image_io import RGBImage, to_pil
from pipelines.pixels import from_image, to_image

ACROSS = 8
GAP = 4


def reconstructions() -> Image.Image:
    """Pictures above what is left of them after the autoencoder."""
    vae, rows = trained_autoencoder(), []
    for styles in ((), STYLES):
        pictures = [render(random_scene(seed), 512, seed, styles) for seed in range(ACROSS)]
        with torch.no_grad():
            latents = [vae.encode(from_image(each, 512, 512)).latent_dist.mean for each in pictures]
            decoded = [to_image(vae.decode(each).sample, 512, 512) for each in latents]
        rows += [pictures, decoded]
    return _sheet(rows)


SHEETS = {"autoencoder": reconstructions}
"""By the name of the training."""


def _sheet(rows: Sequence[Sequence[RGBImage]], side: int = 192) -> Image.Image:
    """Pictures in rows, each scaled to fit a square of ``side`` pixels."""
    width, height = ACROSS * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP
    whole = Image.new("RGB", (width, height), (255, 255, 255))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            scaled = to_pil(picture).resize((side, side), Image.Resampling.LANCZOS)
            whole.paste(scaled, (column * (side + GAP), row * (side + GAP)))
    return whole
