"""What becomes of a drawn picture: replaced if it may not be shown, enlarged if that was asked."""

from __future__ import annotations

from dataclasses import replace

from pipelines.denoising.sample import Handover, Picture
from pipelines.image_io import RGBImage, resized
from pipelines.images.safety import SafetyChecker, shown
from pipelines.request import Prompted, Upscaling

SCALE = 2
"""What ``upscale`` multiplies both sides with."""


def postprocess(
    request: Prompted, image: RGBImage, checker: SafetyChecker | None, warnings: tuple[str, ...]
) -> Picture | Handover:
    """What becomes of a drawn picture.

    Args:
        checker: the checkpoint's, if it has one.
    """
    picture = shown(request, image, checker, warnings)
    if request.upscaler is None:
        return picture
    width, height = SCALE * image.width, SCALE * image.height
    if picture.flagged:
        # Black stays black, and a text legible: no network touches what stands for a flagged picture.
        return replace(picture, image=resized(picture.image, width, height))
    return Handover(
        Upscaling(pipeline=request.upscaler, image=picture.image, width=width, height=height), picture
    )
