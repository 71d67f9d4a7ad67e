"""POST inpaint: repaint the part of a picture that a mask shows in white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter
from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import Inpainting
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.canonical import canonical
from server.endpoints.enterprise.drawing.draw import draw_and_answer
from server.endpoints.enterprise.drawing.picture_fields import FORMS, InitImageFields
from server.endpoints.enterprise.routes import post
from server.endpoints.fields import PictureField


class Inpaint(InitImageFields):
    """The fields of inpaint."""

    slug: ClassVar[str] = "inpaint"
    summary: ClassVar[str] = "Inpainting"
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "prompt": "a cat sitting on a bench",
        "negative_prompt": None,
        "init_image": "https://example.com/dog-on-a-bench.png",
        "mask_image": "https://example.com/where-the-dog-is.png",
        "width": "512",
        "height": "512",
        "samples": "1",
        "steps": "21",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.7,
        "scheduler": "UniPCMultistepScheduler",
        "seed": None,
        "tomesd": "yes",
        "webhook": None,
        "track_id": None,
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "generationTime": 1.92,
        "id": 302457,
        "output": ["http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 21, "W": 512, "H": 512, "strength": 0.7},
    }

    mask_image: PictureField = Field(
        description="White is repainted, black is kept to the pixel; where the mask is grey the old and the"
        f" new picture are mixed, so a blurred mask makes a soft edge. {FORMS}"
    )

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {**super().sent_pictures(), "mask_image": self.mask_image}

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> Inpainting:
        image, mask = pictures["init_image"], pictures["mask_image"]
        return Inpainting(**canonical(self, manifest), image=image, mask=mask, strength=self.strength)


router = APIRouter()
post(router, Inpaint, draw_and_answer)
