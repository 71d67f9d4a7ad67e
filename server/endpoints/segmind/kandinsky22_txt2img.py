"""POST /v1/kandinsky2.2-txt2img and its /v2 twin: text to image through Kandinsky 2.2's prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import PriorTextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import RANDOM_SEED, Flag, Seed, Text, WholeNumber, seeds
from server.endpoints.segmind.page import Delivery, Page, Side, json_or_jpeg
from server.endpoints.segmind.routes import routes

# The page has no guidance scales; these are the ones of diffusers' Kandinsky 2.2 pipelines.
GUIDANCE_SCALE = 4.0
PRIOR_GUIDANCE_SCALE = 4.0


class Kandinsky22Page(Page, title="Kandinsky22"):
    slug: ClassVar[str] = "kandinsky2.2-txt2img"
    summary: ClassVar[str] = "Kandinsky 2.2: text to image"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page, but for the sizes besides 768 and "
        "1024: the page's own sample and clients send them."
    )
    price_millicredits: ClassVar[int] = 10
    default_steps: ClassVar[int] = 20
    example: ClassVar[Mapping[str, object]] = {
        "prompt": "masterpiece, best quality, portrait of an old man, 50mm, solo, natural skin texture, "
        "realistic eye and face details, dark, deep shadow, darkness, moonlight, award winning photo, "
        "extremely detailed, fine detail, highly detailed, extremely detailed eyes and face, "
        "piercing red eyes, detailed clothes, skinny, gothic, native american clothing, analog film, "
        "stock photograph,",
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

    prompt: Text = Field(
        description="What to draw. The prior reads 77 tokens of it; `x-warnings` says what is left out of a"
        " longer one."
    )
    negative_prompt: Text | None = Field(None, description="What to keep out of the picture; 77 tokens, too.")
    samples: WholeNumber = Field(1, ge=1, le=4, description="Pictures to draw. Affects the price.")
    num_inference_steps: WholeNumber = Field(
        20, ge=20, le=100, description="Denoising steps of the decoder. Affects the price."
    )
    img_width: Side = Field(768, description="Width in pixels.")
    img_height: Side = Field(768, description="Height in pixels.")
    prior_steps: WholeNumber = Field(25, ge=1, le=100, description="Denoising steps of the prior.")
    seed: Seed = Field(RANDOM_SEED, description="Same seed, same picture; -1 is random.")
    base64: Flag = Field(False, description="Answer JSON with base64 PNGs instead of a JPEG.")

    def effort(self) -> tuple[int, int]:
        return self.samples, self.num_inference_steps

    def delivery(self) -> Delivery:
        return json_or_jpeg(self.base64)

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> PriorTextToImage:
        return PriorTextToImage(
            pipeline="kandinsky-2-2",
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width=self.img_width,
            height=self.img_height,
            num_inference_steps=self.num_inference_steps,
            prior_num_inference_steps=self.prior_steps,
            guidance_scale=GUIDANCE_SCALE,
            prior_guidance_scale=PRIOR_GUIDANCE_SCALE,
            seeds=seeds(self.seed, self.samples),
        )


router = routes(Kandinsky22Page)
