"""POST img2img: redraw a picture towards a prompt."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage
from server.endpoints.enterprise.drawing.fields import Canonical, draw_and_answer
from server.endpoints.enterprise.drawing.picture_fields import InitImageFields, read_and_crop
from server.endpoints.enterprise.drawing.rewriting import rewrite_prompts
from server.endpoints.enterprise.wire import post, read
from server.http import caller
from server.http.services import services


class Img2Img(InitImageFields):
    """The documented fields."""

    def to_request(self, canonical: Canonical, image: RGBImage) -> ImageToImage:
        """The same in canonical names.

        Args:
            image: already ``width`` x ``height``.
        """
        return ImageToImage(**canonical, image=image, strength=self.strength)


async def img2img(request: Request) -> JSONResponse:
    account, fields = await read(request, Img2Img)
    fields.refuse_too_little()
    fields = await rewrite_prompts(request, account, fields)
    canonical = fields.canonical(services(request).manifest)
    drawn = fields.to_request(canonical, await read_and_crop(request, fields, "init_image"))
    return await draw_and_answer(request, account, "img2img", fields, drawn)


router = APIRouter()
post(
    router,
    "img2img",
    img2img,
    Img2Img,
    summary="Image to image",
    example={
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
    },
    answer={
        "status": "success",
        "generationTime": 1.92,
        "id": 302456,
        "output": ["http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 30, "W": 512, "H": 512, "strength": 0.7},
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
