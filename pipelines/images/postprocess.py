"""The last steps of a drawn picture: a replacement if it may not be shown, enlargement if that was asked."""

from __future__ import annotations

from dataclasses import replace

from pipelines.denoising.sample import Handover, Picture
from pipelines.image_io import RGBImage, resized
from pipelines.images.safety import SafetyChecker, apply_checker
from pipelines.request import Prompted, Upscaling

UPSCALE_FACTOR = 2
"""The factor by which ``upscale`` multiplies both sides."""


def postprocess(
    request: Prompted, image: RGBImage, checker: SafetyChecker | None, warnings: tuple[str, ...]
) -> Picture | Handover:
    """Check a drawn picture, replace it or hand it over to the upscaler, as its request wants.

    Args:
        checker: the checkpoint's safety checker, if it has one.
    """
    picture = apply_checker(request, image, checker, warnings)
    if request.upscaler is None:
        return picture
    width, height = UPSCALE_FACTOR * image.width, UPSCALE_FACTOR * image.height
    if picture.flagged:
        # Black stays black, and a text legible: no network touches what stands for a flagged picture.
        return replace(picture, image=resized(picture.image, width, height))
    return Handover(
        Upscaling(pipeline=request.upscaler, image=picture.image, width=width, height=height), picture
    )
