"""POST /v1/sd1.5-inpainting and its /v2 twin: repaint a part of a picture with Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import Inpainting
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Number
from server.endpoints.segmind.page import InputImage, InputMask
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.stable_diffusion import SizedSD15Page


class SD15Inpainting(SizedSD15Page):
    slug: ClassVar[str] = "sd1.5-inpainting"
    summary: ClassVar[str] = "Stable Diffusion 1.5: inpainting"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page, but for `base64`, the scheduler UniPC "
        "and the sizes besides 512 and 768, which clients send."
    )
    example: ClassVar[Mapping[str, object]] = {
        "prompt": "mecha robot sitting on a bench",
        "negative_prompt": "Disfigured, cartoon, blurry, nude",
        "samples": 1,
        "image": "https://segmind.com/inpainting-input-image.jpeg",
        "mask": "https://segmind.com/inpainting-input-mask.jpeg",
        "scheduler": "DDIM",
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "strength": 1,
        "seed": 17123564234,
        "img_width": 512,
        "img_height": 512,
    }

    image: InputImage
    mask: InputMask
    strength: Number = Field(
        1, ge=0.1, le=1, description="How much of the masked part is redrawn; 1 forgets what was there."
    )

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image, "mask": self.mask}

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> Inpainting:
        width, height = self.img_width, self.img_height
        return Inpainting(
            **self.prompts(),
            image=image_io.cover(pictures["image"], width, height),
            mask=image_io.cover(pictures["mask"], width, height),
            strength=self.strength,
            width=width,
            height=height,
        )


router = routes(SD15Inpainting)
