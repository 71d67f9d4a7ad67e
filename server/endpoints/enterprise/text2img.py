"""POST text2img: pictures of a prompt, by any SD1.5- or SDXL-class checkpoint of the manifest."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.fields import PictureFields, draw_and_answer
from server.endpoints.enterprise.drawing.rewriting import rewrite_prompts
from server.endpoints.enterprise.wire import post, read
from server.http import caller
from server.http.services import services


class Text2Img(PictureFields):
    """The documented fields."""

    def to_request(self, manifest: Manifest) -> TextToImage:
        """The same in canonical names, with explicit seeds.

        Raises:
            NotFound: no such checkpoint. FieldError: no such adapter.
        """
        return TextToImage(**self.canonical(manifest))


async def text2img(request: Request) -> JSONResponse:
    account, fields = await read(request, Text2Img)
    fields = await rewrite_prompts(request, account, fields)
    drawn = fields.to_request(services(request).manifest)
    return await draw_and_answer(request, account, "text2img", fields, drawn)


router = APIRouter()
post(
    router,
    "text2img",
    text2img,
    Text2Img,
    summary="Text to image",
    example={
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
    },
    answer={
        "status": "success",
        "generationTime": 2.92,
        "id": 302455,
        "output": ["http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 20, "W": 512, "H": 512},
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
