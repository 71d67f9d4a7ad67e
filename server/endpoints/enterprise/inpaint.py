"""POST inpaint: repaint the part of a picture that a mask shows in white."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import Inpainting
from server.endpoints.enterprise.drawing.fields import Canonical, draw_and_answer
from server.endpoints.enterprise.drawing.picture_fields import FORMS, InitImageFields, read_and_crop
from server.endpoints.enterprise.drawing.rewriting import rewrite_prompts
from server.endpoints.enterprise.wire import post, read
from server.endpoints.fields import PictureField
from server.http import caller
from server.http.services import services


class Inpaint(InitImageFields):
    """The documented fields."""

    mask_image: PictureField = Field(
        description="White is repainted, black is kept to the pixel; where the mask is grey the old and the"
        f" new picture are mixed, so a blurred mask makes a soft edge. {FORMS}"
    )

    def to_request(self, canonical: Canonical, image: RGBImage, mask: RGBImage) -> Inpainting:
        """The same in canonical names.

        Args:
            image, mask: already ``width`` x ``height``.
        """
        return Inpainting(**canonical, image=image, mask=mask, strength=self.strength)


async def inpaint(request: Request) -> JSONResponse:
    account, fields = await read(request, Inpaint)
    fields.refuse_too_little()
    fields = await rewrite_prompts(request, account, fields)
    canonical = fields.canonical(services(request).manifest)
    image = await read_and_crop(request, fields, "init_image")
    mask = await read_and_crop(request, fields, "mask_image")
    return await draw_and_answer(
        request, account, "inpaint", fields, fields.to_request(canonical, image, mask)
    )


router = APIRouter()
post(
    router,
    "inpaint",
    inpaint,
    Inpaint,
    summary="Inpainting",
    example={
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "prompt": "a cat sitting on a bench",
        "negative_prompt": None,
        "init_image": "https://example.com/dog-on-a-bench.png",
        "mask_image": "https://example.com/where-the-dog-is.png",
        "width": "512",
        "height": "512",
        "samples": "1",
        "steps": "21",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.7,
        "scheduler": "UniPCMultistepScheduler",
        "seed": None,
        "tomesd": "yes",
        "webhook": None,
        "track_id": None,
    },
    answer={
        "status": "success",
        "generationTime": 1.92,
        "id": 302457,
        "output": ["http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 21, "W": 512, "H": 512, "strength": 0.7},
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
