"""POST controlnet: pictures of a prompt that follow the edges, the pose or the depth of a picture."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.endpoints.enterprise.drawing.fields import draw_and_answer
from server.endpoints.enterprise.drawing.picture_fields import read_and_crop
from server.endpoints.enterprise.drawing.rewriting import rewrite_prompts
from server.endpoints.enterprise.steered import ControlNetFields
from server.endpoints.enterprise.wire import post, read
from server.http import caller
from server.http.services import services


async def controlnet(request: Request) -> JSONResponse:
    account, fields = await read(request, ControlNetFields)
    fields.refuse_what_does_not_fit()
    fields = await rewrite_prompts(request, account, fields)
    manifest = services(request).manifest
    canonical = fields.canonical(manifest)
    fields.controls(manifest, None)
    pictures = {name: await read_and_crop(request, fields, name) for name in fields.sent()}
    drawn = fields.to_request(canonical, manifest, pictures)
    return await draw_and_answer(request, account, "controlnet", fields, drawn)


router = APIRouter()
post(
    router,
    "controlnet",
    controlnet,
    ControlNetFields,
    summary="ControlNet",
    example={
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "controlnet_model": "canny",
        "controlnet_type": "canny",
        "auto_hint": "yes",
        "guess_mode": "no",
        "prompt": "a model photo shoot",
        "negative_prompt": None,
        "init_image": "https://example.com/a-person.png",
        "control_image": None,
        "mask_image": None,
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.55,
        "controlnet_conditioning_scale": 1,
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
        "generationTime": 3.83,
        "id": 302458,
        "output": ["http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 30, "controlnet_model": "canny"},
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
