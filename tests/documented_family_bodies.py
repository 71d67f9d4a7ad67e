"""The bodies that the documentation of the vendor's other path families sends, and where they are from.

Pictures are sent as `PICTURE` and `MASK`, and checkpoints are named `CHECKPOINT`: a test puts its own in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PICTURE, MASK, CHECKPOINT = "a picture", "a mask", "a checkpoint"


class Sample(NamedTuple):
    """A documented call: its path, its body, and the page that shows it."""

    path: str
    body: Mapping[str, Any]
    source: str


V3_TEXT2IMG = Sample(
    "/api/v3/text2img",
    {
        "key": "",
        "prompt": "ultra realistic close up portrait ((beautiful pale cyberpunk female with heavy black"
        " eyeliner))",
        "negative_prompt": None,
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "20",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "seed": None,
        "guidance_scale": 7.5,
        "multi_lingual": "no",
        "panorama": "no",
        "self_attention": "no",
        "upscale": "no",
        "embeddings_model": None,
        "webhook": None,
        "track_id": None,
    },
    "Stable Diffusion API V3: text2img",
)

V3_IMG2IMG = Sample(
    "/api/v3/img2img",
    {
        "key": "",
        "prompt": "a cat sitting on a bench",
        "negative_prompt": None,
        "init_image": PICTURE,
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.7,
        "seed": None,
        "base64": "no",
        "webhook": None,
        "track_id": None,
    },
    "Stable Diffusion API V3: img2img",
)

V3_INPAINT = Sample(
    "/api/v3/inpaint", {**V3_IMG2IMG.body, "mask_image": MASK}, "Stable Diffusion API V3: inpaint"
)

V4_TEXT2IMG = Sample(
    "/api/v4/dreambooth",
    {
        "key": "",
        "model_id": CHECKPOINT,
        "prompt": "ultra realistic close up portrait ((beautiful pale cyberpunk female with heavy black"
        " eyeliner)), blue eyes, shaved side haircut, hyper detail, cinematic lighting, magic neon, dark red"
        " city, Canon EOS R3, nikon, f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, symmetrical balance,"
        " in-frame, 8K",
        "negative_prompt": "painting, extra fingers, mutated hands, poorly drawn hands",
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "seed": None,
        "guidance_scale": 7.5,
        "multi_lingual": "no",
        "panorama": "no",
        "self_attention": "no",
        "upscale": "no",
        "embeddings": None,
        "lora": None,
        "webhook": None,
        "track_id": None,
    },
    "Community Models API V4: text to image",
)

V4_IMG2IMG = Sample(
    "/api/v4/dreambooth/img2img",
    {
        "key": "",
        "model_id": CHECKPOINT,
        "prompt": "papercraft, quilling, layers, landscape",
        "negative_prompt": None,
        "init_image": PICTURE,
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "yes",
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
    "Community Models API V4: image to image",
)

V5_CONTROLNET = Sample(
    "/api/v5/controlnet",
    {
        "key": "",
        "controlnet_model": "canny",
        "controlnet_type": "canny",
        "model_id": CHECKPOINT,
        "auto_hint": "yes",
        "guess_mode": "no",
        "prompt": "a model doing photoshoot, ultra high resolution, 4K image",
        "negative_prompt": None,
        "init_image": PICTURE,
        "mask_image": None,
        "width": "512",
        "height": "512",
        "samples": "1",
        "scheduler": "UniPCMultistepScheduler",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "controlnet_conditioning_scale": 0.5,
        "strength": 0.55,
        "lora_model": "more_details",
        "clip_skip": "2",
        "tomesd": "yes",
        "use_karras_sigmas": "yes",
        "vae": None,
        "lora_strength": None,
        "embeddings_model": None,
        "seed": None,
        "webhook": None,
        "track_id": None,
    },
    "ControlNet Main",
)

V6_TEXT2IMG = Sample(
    "/api/v6/images/text2img",
    {
        **{name: value for name, value in V4_TEXT2IMG.body.items() if name not in ("embeddings", "lora")},
        "negative_prompt": "",
        "num_inference_steps": "31",
        "lora_model": None,
        "tomesd": "yes",
        "clip_skip": "2",
        "use_karras_sigmas": "yes",
        "vae": None,
        "lora_strength": None,
        "scheduler": "UniPCMultistepScheduler",
    },
    "Community Models (v6): text to image",
)

REALTIME_TEXT2IMG = Sample(
    "/api/v6/realtime/text2img",
    {
        "key": "",
        "prompt": V3_TEXT2IMG.body["prompt"],
        "negative_prompt": "bad quality",
        "width": "512",
        "height": "512",
        "safety_checker": False,
        "seed": None,
        "samples": 1,
        "base64": False,
        "webhook": None,
        "track_id": None,
    },
    "Realtime Stable Diffusion: text to image",
)

REALTIME_IMG2IMG = Sample(
    "/api/v6/realtime/img2img",
    {
        "key": "",
        "prompt": "a cat sitting on a bench",
        "negative_prompt": "bad quality",
        "init_image": PICTURE,
        "width": "512",
        "height": "512",
        "samples": "1",
        "temp": False,
        "safety_checker": False,
        "strength": 0.7,
        "seed": None,
        "webhook": None,
        "track_id": None,
    },
    "Realtime Stable Diffusion: image to image",
)

SUPER_RESOLUTION = {"key": "", "url": PICTURE, "scale": 3, "webhook": None, "face_enhance": False}

UPSCALING = (
    Sample("/api/v5/super_resolution", SUPER_RESOLUTION, "Image Editing (v5): super resolution"),
    Sample(
        "/api/v6/image_editing/super_resolution",
        {"key": "", "init_image": PICTURE, "model_id": "ultra_resolution", "scale": 4, "face_enhance": False},
        "the vendor's SDKs",
    ),
    Sample(
        "/api/v6/image_editing/super_resolution",
        {
            "key": "",
            "init_image": PICTURE,
            "face_enhance": False,
            "scale": 3,
            "webhook": None,
            "track_id": None,
        },
        "Image Editing (v6): super resolution",
    ),
    Sample(
        "/api/v1/enterprise/super_resolution/make",
        {"key": "", "init_image": PICTURE, "face_enhance": False, "scale": 3, "webhook": None},
        "Enterprise: super resolution server",
    ),
)
