"""Values that several tests need, with as little said as possible."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pipelines.drawing import Timings
from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage, Inpainting, TextToImage
from server.jobs.order import Order

TIMINGS = Timings(encode_s=0.25, denoise_s=1.5, decode_s=0.125)


def text_to_image(prompt: str = "a red circle", **changes: Any) -> TextToImage:
    values: dict[str, Any] = {
        "pipeline": "stable-diffusion-v1-5",
        "prompt": prompt,
        "width": 512,
        "height": 512,
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "seeds": (1,),
    }
    return TextToImage(**values | changes)


def image_to_image(image: RGBImage) -> ImageToImage:
    return ImageToImage(
        pipeline="stable-diffusion-v1-5",
        prompt="a red circle",
        image=image,
        strength=0.75,
        width=image.width,
        height=image.height,
        num_inference_steps=20,
        guidance_scale=7.5,
        seeds=(1,),
    )


def inpainting(image: RGBImage, mask: RGBImage) -> Inpainting:
    like = image_to_image(image)
    values = {field.name: getattr(like, field.name) for field in fields(like) if field.name != "kind"}
    return Inpainting(**values, mask=mask)


def new_order(**changes: Any) -> Order:
    """A synchronous order for 10 millicredits."""
    values: dict[str, Any] = {
        "endpoint": "sd1.5-img2img",
        "request": text_to_image(),
        "price": 10,
        "picture_format": "jpeg",
        "synchronous": True,
    }
    return Order(**values | changes)
