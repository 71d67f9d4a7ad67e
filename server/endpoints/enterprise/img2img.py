"""POST img2img: redraw a picture towards a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter

from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.canonical import canonical
from server.endpoints.enterprise.drawing.draw import draw_and_answer
from server.endpoints.enterprise.drawing.fields import steps
from server.endpoints.enterprise.drawing.picture_fields import InitImageFields
from server.endpoints.enterprise.routes import post
from server.endpoints.fields import WholeNumber


class Img2Img(InitImageFields):
    """The fields of img2img; its page documents 21 steps where none are sent."""

    slug: ClassVar[str] = "img2img"
    summary: ClassVar[str] = "Image to image"
    default_steps: ClassVar[int] = 21
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "prompt": "a cat sitting on a bench",
        "negative_prompt": None,
        "init_image": "https://example.com/dog-on-a-bench.png",
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.7,
        "scheduler": "UniPCMultistepScheduler",
        "seed": None,
        "lora_model": None,
        "tomesd": "yes",
        "use_karras_sigmas": "yes",
        "vae": None,
        "lora_strength": None,
        "embeddings_model": None,
        "webhook": None,
        "track_id": None,
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "generationTime": 1.92,
        "id": 302456,
        "output": ["http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 30, "W": 512, "H": 512, "strength": 0.7},
    }

    num_inference_steps: WholeNumber = steps(21)

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> ImageToImage:
        image = pictures["init_image"]
        return ImageToImage(**canonical(self, manifest), image=image, strength=self.strength)


router = APIRouter()
post(router, Img2Img, draw_and_answer)
