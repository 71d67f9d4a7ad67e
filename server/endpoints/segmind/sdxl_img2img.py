"""POST /v1/sdxl-img2img and /v1/sdxl1.0-img2img and their /v2 twins: redraw a picture with SDXL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Number, Text, whole_number
from server.endpoints.segmind.page import InputImage
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.sizes import size_of_a_megapixel
from server.endpoints.segmind.stable_diffusion import SDXLPage

Side = Annotated[int, Field(ge=512, le=2048, multiple_of=8), whole_number]
SIDE_DESCRIPTION = (
    "Pixels; the picture is cut to fit. Without a width and a height the result keeps the picture's aspect"
    " ratio at about a megapixel; where one of them is sent, the other is 1024. Not on the vendor's page."
)


class SDXLImageToImage(SDXLPage):
    slug: ClassVar[str] = "sdxl-img2img"
    summary: ClassVar[str] = "Stable Diffusion XL: image to image"
    sources: ClassVar[str] = (
        "The vendor's page is that of sdxl-img2img; clients call it sdxl1.0-img2img as well, with "
        "`img_width` and `img_height` besides. Fields and the limits of `samples` are documented; other "
        "limits and defaults are inferred from the vendor's pages of the same kind."
    )
    example: ClassVar[Mapping[str, object]] = {
        "image": "https://segmind-sd-models.s3.amazonaws.com/display_images/sdxl-img2img-ip.jpg",
        "samples": 1,
        "prompt": "photorealistic, high-quality, ultra-detailed, image of (an origami bird with a layer that "
        "makes each folded polygonal section of the origami a different vivid c olor, an origami rainbow of "
        "color in a forest of origami plants and trees in the background), best quality, masterpiece, "
        "masterful composition, award, extremely detailed, incredibly high resolution, 32k, 16k, 8k, 4k, "
        "UHD, HDR, hyperrealistic, photo studio quality, amazing clarity, tack sharp, sharp focus, "
        "volumetric lighting, cinematic style",
        "negative_prompt": "nude, disfigured, blurry",
        "scheduler": "UniPC",
        "base_model": "juggernaut",
        "num_inference_steps": 30,
        "guidance_scale": 6.5,
        "strength": 0.65,
        "seed": 98877465625,
        "base64": False,
    }

    image: InputImage
    strength: Number = Field(0.75, ge=0.1, le=1, description="How much of the picture is redrawn.")
    base_model: Text | None = Field(
        None, description="Has no effect here: SDXL's own checkpoint draws; `x-warnings` says so."
    )
    img_width: Side | None = Field(None, description=SIDE_DESCRIPTION)
    img_height: Side | None = Field(None, description=SIDE_DESCRIPTION)

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image}

    def warnings(self, manifest: Manifest) -> list[str]:
        in_vain = self.base_model not in (None, self.pipeline)
        other = ["base_model: has no effect; the SDXL checkpoint of this server draws"] if in_vain else []
        return super().warnings(manifest) + other

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> ImageToImage:
        picture = pictures["image"]
        width, height = self._size(picture)
        return ImageToImage(
            **self.prompts(),
            image=image_io.cover(picture, width, height),
            strength=self.strength,
            width=width,
            height=height,
        )

    def _size(self, picture: RGBImage) -> tuple[int, int]:
        if self.img_width is None and self.img_height is None:
            return size_of_a_megapixel(picture.width, picture.height)
        return self.img_width or 1024, self.img_height or 1024


class SDXL10ImageToImage(SDXLImageToImage):
    slug: ClassVar[str] = "sdxl1.0-img2img"


routers = (routes(SDXLImageToImage), routes(SDXL10ImageToImage))
