"""POST /v1/sdxl-inpaint and its /v2 twin: repaint a part of a picture with Stable Diffusion XL."""

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
from server.endpoints.segmind.sizes import size_of_a_megapixel
from server.endpoints.segmind.stable_diffusion import SCHEDULER_DESCRIPTION, Scheduler, SDXLPage


class SDXLInpaint(SDXLPage):
    slug: ClassVar[str] = "sdxl-inpaint"
    summary: ClassVar[str] = "Stable Diffusion XL: inpainting"
    sources: ClassVar[str] = (
        "Fields are those of the vendor's page. Defaults are those of its sample or, like limits, inferred "
        "from the vendor's pages of the same kind; so is that the result keeps the picture's aspect ratio."
    )
    example: ClassVar[Mapping[str, object]] = {
        "image": "https://segmind-sd-models.s3.amazonaws.com/outputs/sdxl_inpaint.jpeg",
        "mask": "https://segmind-sd-models.s3.amazonaws.com/outputs/sdxl_inpaint_mask.png",
        "prompt": "A man with black sun glasses",
        "negative_prompt": "bad quality, painting, blur",
        "samples": 1,
        "scheduler": "DDIM",
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "seed": 12467,
        "strength": 0.9,
        "base64": False,
    }

    image: InputImage
    mask: InputMask
    scheduler: Scheduler = Field("DDIM", description=SCHEDULER_DESCRIPTION)
    strength: Number = Field(0.9, ge=0.1, le=1, description="How much of the masked part is redrawn.")

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image, "mask": self.mask}

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> Inpainting:
        picture = pictures["image"]
        width, height = size_of_a_megapixel(picture.width, picture.height)
        return Inpainting(
            **self.prompts(),
            image=image_io.cover(picture, width, height),
            mask=image_io.cover(pictures["mask"], width, height),
            strength=self.strength,
            width=width,
            height=height,
        )


router = routes(SDXLInpaint)
