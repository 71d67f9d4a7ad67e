# pyright: basic, reportPrivateImportUsage=false
# (diffusers and transformers are only partly typed.)
"""The safety checker that Stable Diffusion was published with: says which pictures may not be shown."""

from __future__ import annotations

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

from pipelines.checkpoints import Checkpoint
from pipelines.image_io import RGBImage


class SafetyChecker:
    """CLIP's view of a picture, compared with concepts. ``module`` is the network, for the pool."""

    def __init__(self, module: StableDiffusionSafetyChecker, processor: CLIPImageProcessor) -> None:
        self.module = module
        self._processor = processor

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> SafetyChecker | None:
        """Open the optional part ``safety_checker``; None where the manifest has none."""
        if not checkpoint.has("safety_checker"):
            return None
        return cls(
            checkpoint.module("safety_checker", StableDiffusionSafetyChecker),
            CLIPImageProcessor.from_pretrained(checkpoint.folder("safety_checker")),
        )

    @torch.no_grad()
    def flags(self, image: RGBImage) -> bool:
        """Whether the picture may not be shown."""
        picture = Image.frombytes("RGB", (image.width, image.height), image.pixels)
        seen = self._processor(picture, return_tensors="pt").pixel_values
        # The checker blackens the pictures it is given; the caller replaces the whole picture instead.
        _, flagged = self.module(
            clip_input=seen.to(self.module.device, self.module.dtype), images=torch.zeros(1, 1)
        )
        return bool(flagged[0])
