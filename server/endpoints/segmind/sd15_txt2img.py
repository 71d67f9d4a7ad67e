"""POST /v1/sd1.5-txt2img and its /v2 twin: text to image with Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipelines.image_io import RGBImage
from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.stable_diffusion import SizedSD15Page


class SD15TextToImage(SizedSD15Page):
    slug: ClassVar[str] = "sd1.5-txt2img"
    summary: ClassVar[str] = "Stable Diffusion 1.5: text to image"
    sources: ClassVar[str] = (
        "The vendor has no page of it any more. Clients send all of these fields; defaults and limits are "
        "inferred from sd1.5-img2img, and the sample is that of sd2.1-txt2img."
    )
    example: ClassVar[Mapping[str, object]] = {
        "prompt": "calico cat wearing a cosmonaut suit, 3d render, pixar style, 8k, high resolution",
        "negative_prompt": "nude, disfigured, blurry",
        "samples": 1,
        "scheduler": "DDIM",
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "seed": 17123564234,
        "img_width": 512,
        "img_height": 512,
        "base64": False,
    }

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> TextToImage:
        return TextToImage(**self.prompts(), width=self.img_width, height=self.img_height)


router = routes(SD15TextToImage)
