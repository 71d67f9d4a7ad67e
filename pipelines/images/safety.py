"""Stable Diffusion's safety checker, and the pictures that are shown instead of those that it flags."""

from __future__ import annotations

import math
from typing import assert_never

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from transformers import CLIPImageProcessor

from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.pipeline import DirectAnswer
from pipelines.denoising.sample import Picture
from pipelines.drawing import Drawing
from pipelines.errors import CheckpointUnavailable, InvalidInput
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.request import Prompted, Replacement, SafetyCheck

BLOCKS = 16
"""The blocks along the longer side of a pixelated picture; a blur reaches as far as one of them."""

WARNING_TEXT = "Sensitive content"


class SafetyChecker:
    """Compares CLIP's view of a picture with concepts.

    Attributes:
        module: the network, for the pool.
    """

    module: torch.nn.Module

    def __init__(self, module: StableDiffusionSafetyChecker, processor: CLIPImageProcessor) -> None:
        self.module = module
        self._processor = processor

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> SafetyChecker | None:
        """Open the optional part ``safety_checker``; None where the manifest has none.

        One that is missing or damaged fails only the requests that want it: none is drawn unchecked.
        """
        if not checkpoint.has("safety_checker"):
            return None
        try:
            return cls(
                checkpoint.module("safety_checker", StableDiffusionSafetyChecker),
                CLIPImageProcessor.from_pretrained(checkpoint.path("safety_checker")),
            )
        except CheckpointUnavailable as error:
            return UnavailableSafetyChecker(checkpoint.name, error)

    def demand(self) -> None:
        """Refuse a request that wants a check which cannot be made.

        Raises:
            CheckpointUnavailable: its weights are missing or damaged.
        """

    @torch.no_grad()
    def flags(self, image: RGBImage) -> bool:
        """Whether the picture may not be shown."""
        seen = self._processor(to_pil(image), return_tensors="pt").pixel_values
        # The checker blackens the pictures it is given; the caller replaces the whole picture instead.
        _, flagged = self.module(
            clip_input=seen.to(self.module.device, self.module.dtype), images=torch.zeros(1, 1)
        )
        return bool(flagged[0])


class UnavailableSafetyChecker(SafetyChecker):
    """Stands for a safety checker whose weights are missing or damaged."""

    def __init__(self, name: str, error: CheckpointUnavailable) -> None:
        self.module = torch.nn.Identity()
        self._name = name
        self._remedy = error.remedy

    def demand(self) -> None:
        raise CheckpointUnavailable(
            f"the safety checker of {self._name} is unavailable: its weights are missing or damaged",
            self._remedy,
        )

    def flags(self, image: RGBImage) -> bool:
        self.demand()
        return True


def check_safety(request: SafetyCheck, checker: SafetyChecker | None) -> DirectAnswer:
    """Answer a request for the checker's word on a picture.

    Raises:
        InvalidInput: there is no checker.
    """
    if checker is None:
        raise InvalidInput("pipeline", f"{request.pipeline} has no safety checker")
    checker.demand()
    image = request.image
    return DirectAnswer(lambda: Drawing(images=(image,), flagged=(checker.flags(image),)))


def apply_checker(
    request: Prompted, image: RGBImage, checker: SafetyChecker | None, warnings: tuple[str, ...]
) -> Picture:
    """The drawn picture as its caller may see it: checked if the request wants that, replaced if flagged.

    Args:
        checker: the checkpoint's; a request that wants one where there is none gets a warning.
    """
    if not request.safety_checker:
        return Picture(image, warnings=warnings)
    if checker is None:
        return Picture(image, warnings=(*warnings, f"{request.pipeline} has no safety checker"))
    flagged = checker.flags(image)
    return Picture(replaced(image, request.replacement) if flagged else image, flagged, warnings)


def replaced(image: RGBImage, by: Replacement) -> RGBImage:
    """The picture that is shown instead of another one, of the same size."""
    picture = to_pil(image)
    match by:
        case "black":
            return RGBImage(image.width, image.height, bytes(len(image.pixels)))
        case "blur":
            return from_pil(_blurred(picture))
        case "pixelate":
            return from_pil(_pixelated(picture))
        case "sensitive_content_text":
            return from_pil(_labelled(_blurred(picture)))
        case _:
            assert_never(by)


def _blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / BLOCKS))


def _pixelated(picture: Image.Image) -> Image.Image:
    block = max(1, max(picture.size) // BLOCKS)
    small = (math.ceil(picture.width / block), math.ceil(picture.height / block))
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


def _labelled(picture: Image.Image) -> Image.Image:
    """The picture with the warning in its middle, in Pillow's own font."""
    font_size = max(8, min(picture.width // 10, picture.height // 2))
    middle = (picture.width / 2, picture.height / 2)
    ImageDraw.Draw(picture).text(
        middle,
        WARNING_TEXT,
        fill="white",
        font=ImageFont.load_default(font_size),
        anchor="mm",
        stroke_width=max(1, font_size // 16),
        stroke_fill="black",
    )
    return picture
