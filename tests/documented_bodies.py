"""The body that each page's documentation sends, and the programs that send it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KANDINSKY22: Mapping[str, Any] = {
    "prompt": "masterpiece, best quality, portrait of an old man, 50mm, solo, natural skin texture, "
    "realistic eye and face details, dark, deep shadow, darkness, moonlight, award winning photo, "
    "extremely detailed, fine detail, highly detailed, extremely detailed eyes and face, piercing red "
    "eyes, detailed clothes, skinny, gothic, native american clothing, analog film, stock photograph,",
    "negative_prompt": "lowres, text, error, cropped, worst quality, low quality, jpeg artifacts, ugly, "
    "duplicate, morbid, mutilated, out of frame, extra fingers, mutated hands",
    "samples": 1,
    "num_inference_steps": 25,
    "img_width": 512,
    "img_height": 768,
    "prior_steps": 25,
    "seed": 9863172,
    "base64": False,
}
"""Sent as JSON."""

KOLORS: Mapping[str, Any] = {
    "cfg": 6,
    "seed": 441234134,
    "steps": 25,
    "width": 1024,
    "height": 1024,
    "prompt": "In this lively 2D illustration, three animated boys joyfully have their laughter filling "
    "the air. , adding warmth and charm. The agave field behind them radiates warmth, emphasizing the "
    "authenticity of this gathering spot and the togetherness of the boys sharing a moment of joy.",
    "scheduler": "EulerDiscreteScheduler",
    "output_format": "webp",
    "output_quality": 80,
    "negative_prompt": "",
    "number_of_images": 1,
}
"""Sent as the texts of a form."""

SD3_MED_POSE: Mapping[str, Any] = {
    "prompt": "Anime style illustration of a girl wearing a suit. A moon in sky. In the background we see "
    "a big rain approaching.",
    "negative_prompt": "low quality,less details",
    "image": "https://segmind-sd-models.s3.amazonaws.com/display_images/sd3m-controlnet/sd3-canny-ip.jpg",
    "num_inference_steps": 20,
    "guidance_scale": 7,
    "seed": 698845,
    "samples": 1,
    "strength": 0.8,
    "sampler": "dpmpp_2m",
    "scheduler": "sgm_uniform",
    "base64": False,
}
"""Sent as JSON, with the base64 of what the URL names."""

SD15_IMG2IMG: Mapping[str, Any] = {
    "image": "https://www.segmind.com/sd-img2img-input.jpeg",
    "samples": 1,
    "prompt": "A fantasy landscape, trending on artstation, mystical sky",
    "negative_prompt": "nude, disfigured, blurry",
    "scheduler": "DDIM",
    "num_inference_steps": 25,
    "guidance_scale": 10.5,
    "strength": 0.75,
    "seed": 98877465625,
    "img_width": 512,
    "img_height": 512,
    "base64": False,
}
"""Sent as JSON, with the base64 of what the URL names; one sample sends ``toB64('URL')`` as it stands."""

SD15_TXT2IMG: Mapping[str, Any] = {
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
"""Sent as JSON by clients; the vendor has no page of it any more."""

SD15_INPAINTING: Mapping[str, Any] = {
    "prompt": "mecha robot sitting on a bench",
    "negative_prompt": "Disfigured, cartoon, blurry, nude",
    "samples": 1,
    "image": "https://segmind.com/inpainting-input-image.jpeg",
    "mask": "https://segmind.com/inpainting-input-mask.jpeg",
    "scheduler": "DDIM",
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
    "strength": 1,
    "seed": 17123564234,
    "img_width": 512,
    "img_height": 512,
}

SD15_CONTROLNET_CANNY: Mapping[str, Any] = {
    "image": "https://segmind.com/canny-input.jpeg",
    "samples": 1,
    "prompt": "a colorful bird, 4k",
    "negative_prompt": "Disfigured, cartoon, blurry, nude",
    "scheduler": "UniPC",
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
    "strength": 1,
    "seed": 3131738736286,
    "base64": False,
}

SD15_CONTROLNET_DEPTH: Mapping[str, Any] = {
    **SD15_CONTROLNET_CANNY,
    "image": "https://segmind.com/depth.jpeg",
    "prompt": "young african american man, black suit, smiling, white background",
    "negative_prompt": "mangled ears, Disfigured, cartoon, blurry, nude",
    "seed": 9715432854,
}

SD15_CONTROLNET_SCRIBBLE: Mapping[str, Any] = {
    **SD15_CONTROLNET_CANNY,
    "image": "https://segmind.com/scribble-input.jpeg",
    "prompt": "steampunk underwater helmet, dark ocean background",
    "seed": 85497675147333,
}

SD15_CONTROLNET_SOFTEDGE: Mapping[str, Any] = {
    **SD15_CONTROLNET_CANNY,
    "image": "https://segmind.com/soft-edge-input.jpeg",
    "prompt": "royal chamber with fancy bed",
    "seed": 131487365682,
}

SDXL10_TXT2IMG: Mapping[str, Any] = {
    "prompt": "cinematic film still, 4k, realistic, ((cinematic photo:1.3)) of panda wearing a blue "
    "spacesuit, sitting in a bar, Fujifilm XT3, long shot, ((low light:1.4)), ((looking straight at the "
    "camera:1.3)), upper body shot, somber, shallow depth of field, vignette, highly detailed, high budget "
    "Hollywood movie, bokeh, cinemascope, moody, epic, gorgeous, film grain, grainy",
    "negative_prompt": "ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of "
    "frame, extra limbs, disfigured, deformed, body out of frame, blurry, bad anatomy, blurred, watermark, "
    "grainy, signature, cut off, draft",
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

SDXL_IMG2IMG: Mapping[str, Any] = {
    "image": "https://segmind-sd-models.s3.amazonaws.com/display_images/sdxl-img2img-ip.jpg",
    "samples": 1,
    "prompt": "photorealistic, high-quality, ultra-detailed, image of (an origami bird with a layer that "
    "makes each folded polygonal section of the origami a different vivid c olor, an origami rainbow of "
    "color in a forest of origami plants and trees in the background), best quality, masterpiece, masterful "
    "composition, award, extremely detailed, incredibly high resolution, 32k, 16k, 8k, 4k, UHD, HDR, "
    "hyperrealistic, photo studio quality, amazing clarity, tack sharp, sharp focus, volumetric lighting, "
    "cinematic style",
    "negative_prompt": "nude, disfigured, blurry",
    "scheduler": "UniPC",
    "base_model": "juggernaut",
    "num_inference_steps": 30,
    "guidance_scale": 6.5,
    "strength": 0.65,
    "seed": 98877465625,
    "base64": False,
}

SDXL_INPAINT: Mapping[str, Any] = {
    "image": "https://segmind-sd-models.s3.amazonaws.com/outputs/sdxl_inpaint.jpeg",
    "mask": "https://segmind-sd-models.s3.amazonaws.com/outputs/sdxl_inpaint_mask.png",
    "prompt": "A man with black sun glasses",
    "negative_prompt": "bad quality, painting, blur",
    "samples": 1,
    "scheduler": "DDIM",
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
    "seed": 12467,
    "strength": 0.9,
    "base64": False,
}

ESRGAN: Mapping[str, Any] = {
    "image": "https://www.segmind.com/butterfly.png",
    "scale": "2",
    "output_format": "jpeg",
    "quality": 95,
}

TEXT2IMG: Mapping[str, Any] = {
    "key": "enterprise_api_key",
    "model_id": "stable-diffusion-v1-5",
    "prompt": "ultra realistic close up portrait ((beautiful pale cyberpunk female with heavy black "
    "eyeliner)), blue eyes, shaved side haircut, hyper detail, cinematic lighting, magic neon, dark red "
    "city, Canon EOS R3, nikon, f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, symmetrical balance, in-frame, 8K",
    "negative_prompt": "painting, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, "
    "deformed, ugly, blurry, bad anatomy, bad proportions, extra limbs, cloned face, skinny, glitchy, double "
    "torso, extra arms, extra hands, mangled fingers, missing lips, ugly face, distorted face, extra legs, "
    "anime",
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
    "lora_model": None,
    "clip_skip": "2",
    "tomesd": "yes",
    "use_karras_sigmas": "yes",
    "vae": None,
    "lora_strength": None,
    "scheduler": "UniPCMultistepScheduler",
    "webhook": None,
    "track_id": None,
}

TEXT2IMG_ANSWER: Mapping[str, Any] = {
    "status": "success",
    "generationTime": 2.920767068862915,
    "id": 302455,
    "output": [
        "https://d1okzptojspljx.cloudfront.net/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"
    ],
    "meta": {
        "prompt": "ultra realistic close up portrait ((beautiful pale cyberpunk female with heavy black "
        "eyeliner)), blue eyes, shaved side haircut, hyper detail, cinematic lighting, magic neon, dark red "
        "city, Canon EOS R3, nikon, f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, symmetrical balance, "
        "in-frame, 8K",
        "model_id": "runwayml/stable-diffusion-v1-5",
        "negative_prompt": "painting, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, "
        "deformed, ugly, blurry, bad anatomy, bad proportions, extra limbs, cloned face, skinny, glitchy, "
        "double torso, extra arms, extra hands, mangled fingers, missing lips, ugly face, distorted face, "
        "extra legs, anime ((out of frame)), ((extra fingers)), mutated hands, ((poorly drawn hands)), "
        "((poorly drawn face)), (((mutation))), (((deformed))), (((tiling))), ((naked)), ((tile)), "
        "((fleshpile)), ((ugly)), (((abstract))), blurry, ((bad anatomy)), ((bad proportions)), ((extra "
        "limbs)), cloned face, glitchy, ((extra breasts)), ((double torso)), ((extra arms)), ((extra "
        "hands)), ((mangled fingers)), ((missing breasts)), (missing lips), ((ugly face)), ((fat)), ((extra "
        "legs))",
        "scheduler": "UniPCMultistepScheduler",
        "revision": "fp16",
        "safetychecker": "no",
        "W": 512,
        "H": 512,
        "enable_attention_slicing": "true",
        "file_prefix": "05c3260d-6a2e-4aa5-82f0-e952f2a5fa10",
        "guidance_scale": 7.5,
        "seed": 1793745243,
        "steps": 20,
        "n_samples": 1,
        "upscale": "no",
        "multi_lingual": "no",
        "panorama": "no",
        "self_attention": "no",
        "embeddings": None,
        "lora": None,
        "outdir": "out",
        "vae": "stabilityai/sd-vae-ft-mse",
    },
}
"""What the page answers to its own sample, `TEXT2IMG`."""

IMG2IMG_AND_INPAINT: Mapping[str, Any] = {
    "key": "enterprise_api_key",
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat sitting on a bench",
    "negative_prompt": None,
    "init_image": "https://example.com/overture-creations-5sI6fQgYIuo.png",
    "width": "512",
    "height": "512",
    "samples": "2",
    "safety_checker": "no",
    "enhance_prompt": "no",
    "guidance_scale": 7.5,
    "strength": 0.7,
    "seed": "7",
    "tomesd": "no",
    "webhook": None,
    "track_id": None,
}
"""The fields that the samples of img2img and of inpaint share."""

CONTROLNET: Mapping[str, Any] = {
    "key": "enterprise_api_key",
    "controlnet_model": "canny",
    "controlnet_type": "canny",
    "model_id": "stable-diffusion-v1-5",
    "auto_hint": "yes",
    "guess_mode": "no",
    "prompt": "a model photo shoot",
    "negative_prompt": None,
    "init_image": "https://example.com/person.png",
    "control_image": None,
    "mask_image": None,
    "width": "512",
    "height": "512",
    "samples": "1",
    "scheduler": "UniPCMultistepScheduler",
    "tomesd": "no",
    "use_karras_sigmas": "yes",
    "vae": None,
    "lora_strength": None,
    "lora_model": None,
    "num_inference_steps": "30",
    "safety_checker": "no",
    "enhance_prompt": "no",
    "guidance_scale": 7.5,
    "strength": 0.55,
    "seed": "7",
    "webhook": None,
    "track_id": None,
}


def program_with_json(page: str, body: Mapping[str, Any], *, picture: str | None = None) -> str:
    """Segmind's sample in Python for a page that takes JSON.

    Args:
        picture: URL of the picture that the sample encodes as the body's ``image``.
    """
    literal = repr({**body, "image": picture} if picture else dict(body))
    if picture:
        literal = literal.replace(repr(picture), f"image_url_to_base64({picture!r})")
    return f"""
import requests
import base64

# Use this function to convert an image file from the filesystem to base64
def image_file_to_base64(image_path):
    with open(image_path, 'rb') as f:
        image_data = f.read()
    return base64.b64encode(image_data).decode('utf-8')

# Use this function to fetch an image from a URL and convert it to base64
def image_url_to_base64(image_url):
    response = requests.get(image_url)
    image_data = response.content
    return base64.b64encode(image_data).decode('utf-8')

api_key = "YOUR_API_KEY"
url = "https://api.segmind.com/v1/{page}"

# Request payload
data = {literal}

headers = {{'x-api-key': api_key}}

response = requests.post(url, json=data, headers=headers)
print(response.content)  # The response is the generated image
"""


def program_with_form(page: str, body: Mapping[str, Any]) -> str:
    """Segmind's sample in Python for a page that takes a form."""
    lines = "\n".join(f"data[{name!r}] = {value!r}" for name, value in body.items())
    return f"""
import requests

api_key = "YOUR_API_KEY"
url = "https://api.segmind.com/v1/{page}"

# Prepare data and files
data = {{}}
files = {{}}

{lines}

headers = {{'x-api-key': api_key}}

response = requests.post(url, data=data, files=files, headers=headers)
print(response.content)  # The response is the generated image
"""
