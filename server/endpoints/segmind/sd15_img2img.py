"""POST /v1/sd1.5-img2img and its /v2 twin: redraw a picture with Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Number
from server.endpoints.segmind.page import InputImage
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.stable_diffusion import SizedSD15Page


class SD15ImageToImage(SizedSD15Page):
    slug: ClassVar[str] = "sd1.5-img2img"
    summary: ClassVar[str] = "Stable Diffusion 1.5: image to image"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page, but for the scheduler UniPC and the "
        "sizes besides 512 and 768, which clients send. The default of `strength` is that of the page's "
        "sample: the page prints 1, as it does beside every field without a default."
    )
    example: ClassVar[Mapping[str, object]] = {
        "image": "https://www.segmind.com/sd-img2img-input.jpeg",
        "samples": 1,
        "prompt": "A fantasy landscape, trending on artstation, mystical sky",
        "negative_prompt": "nude, disfigured, blurry",
        "scheduler": "DDIM",
        "num_inference_steps": 25,
        "guidance_scale": 10.5,
        "strength": 0.75,
        "seed": 98877465625,
        "img_width": 512,
        "img_height": 512,
        "base64": False,
    }

    image: InputImage
    strength: Number = Field(0.75, ge=0.1, le=1, description="How much of the picture is redrawn.")

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image}

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> ImageToImage:
        width, height = self.img_width, self.img_height
        return ImageToImage(
            **self.prompts(),
            image=image_io.cover(pictures["image"], width, height),
            strength=self.strength,
            width=width,
            height=height,
        )


router = routes(SD15ImageToImage)
