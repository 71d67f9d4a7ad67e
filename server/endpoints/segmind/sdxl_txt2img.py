"""POST /v1/sdxl1.0-txt2img and its /v2 twin: text to image with Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Flag, Number, Text, WholeNumber
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.stable_diffusion import SDXLPage

NO_STYLE = "base"
REFINER_FIELDS = ("refiner", "strength", "high_noise_fraction")


class SDXLTextToImage(SDXLPage):
    slug: ClassVar[str] = "sdxl1.0-txt2img"
    summary: ClassVar[str] = "Stable Diffusion XL: text to image"
    sources: ClassVar[str] = (
        "Fields, sizes and the limits of `samples`, `guidance_scale` and `high_noise_fraction` are those "
        "of the vendor's page. The default scheduler and number of steps are those of the vendor's "
        "JavaScript SDK; the limits of the steps are the widest of the vendor's pages of other SDXL "
        "checkpoints."
    )
    example: ClassVar[Mapping[str, object]] = {
        "prompt": "cinematic film still, 4k, realistic, ((cinematic photo:1.3)) of panda wearing a blue "
        "spacesuit, sitting in a bar, Fujifilm XT3, long shot, ((low light:1.4)), ((looking straight at the "
        "camera:1.3)), upper body shot, somber, shallow depth of field, vignette, highly detailed, high "
        "budget Hollywood movie, bokeh, cinemascope, moody, epic, gorgeous, film grain, grainy",
        "negative_prompt": "ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of "
        "frame, extra limbs, disfigured, deformed, body out of frame, blurry, bad anatomy, blurred, "
        "watermark, grainy, signature, cut off, draft",
        "style": "base",
        "samples": 1,
        "scheduler": "UniPC",
        "num_inference_steps": 25,
        "guidance_scale": 8,
        "strength": 0.2,
        "high_noise_fraction": 0.8,
        "seed": 468685,
        "img_width": 896,
        "img_height": 1152,
        "refiner": True,
        "base64": False,
    }

    style: Text = Field(
        NO_STYLE, description="Has no effect here; `x-warnings` says so of every style but `base`."
    )
    refiner: Flag = Field(
        False,
        description="Has no effect here, like the two fields that belong to it: this server has no refiner.",
    )
    strength: Number = Field(0.2, ge=0, le=1, description="Of the refiner: has no effect here.")
    high_noise_fraction: Number = Field(0.8, ge=0, le=1, description="Of the refiner: has no effect here.")
    img_width: WholeNumber = Field(1024, ge=512, le=2048, multiple_of=8, description="Width in pixels.")
    img_height: WholeNumber = Field(1024, ge=512, le=2048, multiple_of=8, description="Height in pixels.")

    def warnings(self, manifest: Manifest) -> list[str]:
        found = super().warnings(manifest)
        if self.style != NO_STYLE:
            found.append("style: has no effect here; say it in the prompt")
        declined = "refiner" in self.model_fields_set and not self.refiner
        in_vain = [name for name in REFINER_FIELDS if name in self.model_fields_set and not declined]
        return found + [f"{name}: has no effect, because this server has no refiner" for name in in_vain]

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> TextToImage:
        return TextToImage(**self.prompts(), width=self.img_width, height=self.img_height)


router = routes(SDXLTextToImage)
