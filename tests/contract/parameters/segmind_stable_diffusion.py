"""Segmind's further pages of Stable Diffusion and that of the upscaler: parameters and their effects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipelines.request import Control
from tests.contract.parameters.effects import (
    SENT,
    answer,
    drawn,
    picture,
    sent_picture,
    shown,
    warned,
)
from tests.contract.parameters.rows import Page, Row, every, row
from tests.contract.parameters.segmind_pages import (
    CALLER,
    GREEN,
    NOISE_SCHEDULER_ROWS,
    RED,
    SIDES,
)

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

PROMPTS = (
    *CALLER,
    row("prompt", "a dog", drawn(prompt=SENT)),
    row("negative_prompt", "rain", drawn(negative_prompt=SENT)),
    row("samples", 3, drawn(seeds=(7, 8, 9))),
    row("num_inference_steps", 21, drawn(num_inference_steps=SENT)),
    row("guidance_scale", 3.5, drawn(guidance_scale=SENT)),
    row("seed", 11, drawn(seeds=(11,))),
    row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
)


def schedulers(default: str) -> Iterator[Row]:
    return every("scheduler", NOISE_SCHEDULER_ROWS, default=default)


def sides(**pictures: tuple[int, int, int]) -> Iterator[Row]:
    """Both sides of SD1.5, and how large the pictures get that are sent."""

    def sized(width: int, height: int) -> dict[str, Any]:
        return {name: shown(colour, width, height) for name, colour in pictures.items()}

    wide = {side: drawn(width=side, **sized(side, 512)) for side in SIDES}
    high = {side: drawn(height=side, **sized(512, side)) for side in SIDES}
    yield from every("img_width", wide, default=512)
    yield from every("img_height", high, default=512)


SD15_TXT2IMG = Page(
    "/v1/sd1.5-txt2img", {"prompt": "a cat", "seed": 7}, (*PROMPTS, *schedulers("DDIM"), *sides())
)

SD15_INPAINTING = Page(
    "/v1/sd1.5-inpainting",
    {"prompt": "a cat", "seed": 7, "image": sent_picture(RED), "mask": sent_picture(WHITE)},
    (
        *PROMPTS,
        *schedulers("DDIM"),
        *sides(image=RED, mask=WHITE),
        row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 512, 512))),
        row("mask", sent_picture(BLACK), drawn(mask=shown(BLACK, 512, 512))),
        row("strength", 0.25, drawn(strength=SENT)),
    ),
)


def controlnet(kind: str, preprocessor: str) -> Page:
    """A page of a ControlNet."""
    control = Control(name=kind, image=shown(RED, 512, 512), preprocessor=preprocessor)
    return Page(
        f"/v1/sd1.5-controlnet-{kind}",
        {"prompt": "a cat", "seed": 7, "image": sent_picture(RED)},
        (
            *PROMPTS,
            *schedulers("UniPC"),
            row(
                "image",
                sent_picture(GREEN),
                drawn(controls=(replace(control, image=shown(GREEN, 512, 512)),)),
            ),
            row("strength", 0.25, drawn(controls=(replace(control, scale=0.25),))),
        ),
    )


CONTROLNETS = (
    controlnet("canny", "canny"),
    controlnet("depth", "depth"),
    controlnet("openpose", "openpose"),
    controlnet("scribble", "scribble"),
    controlnet("softedge", "hed"),
    controlnet("mlsd", "mlsd"),
)


def without_refiner(name: str) -> str:
    return f"{name}: has no effect, because this server has no refiner"


SDXL_TXT2IMG = Page(
    "/v1/sdxl1.0-txt2img",
    {"prompt": "a cat", "seed": 7, "img_width": 512, "img_height": 512},
    (
        *PROMPTS,
        *schedulers("UniPC"),
        row("img_width", 1152, drawn(width=SENT)),
        row("img_height", 1152, drawn(height=SENT)),
        row("style", "anime", warned("style: has no effect here; say it in the prompt")),
        row("refiner", True, warned(without_refiner("refiner"))),
        row("strength", 0.3, warned(without_refiner("strength"))),
        row("high_noise_fraction", 0.7, warned(without_refiner("high_noise_fraction"))),
    ),
)


def sdxl_img2img(slug: str) -> Page:
    """A page of SDXL that redraws a picture; both of them are the same."""
    return Page(
        f"/v1/{slug}",
        {"prompt": "a cat", "seed": 7, "image": sent_picture(RED)},
        (
            *PROMPTS,
            *schedulers("UniPC"),
            row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 1024, 1024))),
            row("strength", 0.25, drawn(strength=SENT)),
            row("img_width", 512, drawn(width=512, image=shown(RED, 512, 1024))),
            row("img_height", 512, drawn(height=512, image=shown(RED, 1024, 512))),
            row(
                "base_model",
                "juggernaut",
                warned("base_model: has no effect; the SDXL checkpoint of this server draws"),
            ),
        ),
    )


SDXL_INPAINT = Page(
    "/v1/sdxl-inpaint",
    {"prompt": "a cat", "seed": 7, "image": sent_picture(RED), "mask": sent_picture(WHITE)},
    (
        *PROMPTS,
        *schedulers("DDIM"),
        row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 1024, 1024))),
        row("mask", sent_picture(BLACK), drawn(mask=shown(BLACK, 1024, 1024))),
        row("strength", 0.25, drawn(strength=SENT)),
    ),
)

ESRGAN = Page(
    "/v1/esrgan",
    {"image": sent_picture(RED)},
    (
        *CALLER,
        row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 8, 8))),
        *every(
            "scale",
            {
                2: drawn(width=16, height=16),
                4: drawn(width=32, height=32),
                8: drawn(width=64, height=64),
            },
            default=2,
        ),
        *every(
            "output_format",
            {
                "jpeg": picture(format="JPEG", content_type="image/jpeg"),
                "png": picture(format="PNG", content_type="image/png"),
                "webp": picture(format="WEBP", content_type="image/webp"),
            },
            default="jpeg",
        ),
        row("quality", 25, picture(quantizer=32)),
        row("face_enhance", True, drawn(face_restorer="faces")),
        row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
    ),
)

PAGES = (
    SD15_TXT2IMG,
    SD15_INPAINTING,
    *CONTROLNETS,
    SDXL_TXT2IMG,
    sdxl_img2img("sdxl-img2img"),
    sdxl_img2img("sdxl1.0-img2img"),
    SDXL_INPAINT,
    ESRGAN,
)
