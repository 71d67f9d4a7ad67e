"""POST text2img: pictures of a prompt, by any SD1.5- or SDXL-class checkpoint of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter

from pipelines.image_io import RGBImage
from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.canonical import canonical
from server.endpoints.enterprise.drawing.draw import draw_and_answer
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.endpoints.enterprise.routes import post


class Text2Img(PictureFields):
    """The fields of text2img."""

    slug: ClassVar[str] = "text2img"
    summary: ClassVar[str] = "Text to image"
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "prompt": "ultra realistic close up portrait of a pale cyberpunk woman, blue eyes, neon, dark city",
        "negative_prompt": "painting, extra fingers, blurry",
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "20",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "seed": None,
        "guidance_scale": 7.5,
        "clip_skip": "2",
        "tomesd": "yes",
        "use_karras_sigmas": "yes",
        "scheduler": "UniPCMultistepScheduler",
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "generationTime": 2.92,
        "id": 302455,
        "output": ["http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 20, "W": 512, "H": 512},
    }

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> TextToImage:
        return TextToImage(**canonical(self, manifest))


router = APIRouter()
post(router, Text2Img, draw_and_answer)
