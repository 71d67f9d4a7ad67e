"""POST /v1/sd1.5-img2img and its /v2 twin: redraw a picture with Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage, SchedulerChoice
from server.endpoints.fields import RANDOM_SEED, Flag, Number, Seed, Text, WholeNumber, seeds
from server.endpoints.segmind.page import Delivery, InputImage, Page, Side, json_or_jpeg
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.warnings import WITHOUT_GUIDANCE

# fmt: off
Scheduler = Literal[
    "DDIM", "DPM Multi", "DPM Single", "Euler a", "Euler", "Heun", "DPM2 a Karras", "DPM2 Karras", "LMS",
    "PNDM", "DDPM", "UniPC",
]
# fmt: on
NOISE_SCHEDULERS: Mapping[Scheduler, SchedulerChoice] = {
    "DDIM": SchedulerChoice(name="DDIMScheduler"),
    "DPM Multi": SchedulerChoice(name="DPMSolverMultistepScheduler"),
    "DPM Single": SchedulerChoice(name="DPMSolverSinglestepScheduler"),
    "Euler a": SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    "Euler": SchedulerChoice(name="EulerDiscreteScheduler"),
    "Heun": SchedulerChoice(name="HeunDiscreteScheduler"),
    "DPM2 a Karras": SchedulerChoice(name="KDPM2AncestralDiscreteScheduler", use_karras_sigmas=True),
    "DPM2 Karras": SchedulerChoice(name="KDPM2DiscreteScheduler", use_karras_sigmas=True),
    "LMS": SchedulerChoice(name="LMSDiscreteScheduler"),
    "PNDM": SchedulerChoice(name="PNDMScheduler"),
    "DDPM": SchedulerChoice(name="DDPMScheduler"),
    "UniPC": SchedulerChoice(name="UniPCMultistepScheduler"),
}


class SD15ImageToImage(Page):
    slug: ClassVar[str] = "sd1.5-img2img"
    summary: ClassVar[str] = "Stable Diffusion 1.5: image to image"
    price_millicredits: ClassVar[int] = 5
    default_steps: ClassVar[int] = 20
    example: ClassVar[Mapping[str, object]] = {
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

    image: InputImage
    samples: WholeNumber = Field(1, ge=1, le=4, description="Pictures to draw. Affects the price.")
    prompt: Text = Field(description="What to draw; brackets are ordinary characters.")
    negative_prompt: Text | None = Field(None, description="What to keep out of the picture.")
    scheduler: Scheduler = Field("DDIM", description="Noise scheduler.")
    num_inference_steps: WholeNumber = Field(
        20, ge=20, le=100, description="Denoising steps. Affects the price."
    )
    guidance_scale: Number = Field(7.5, ge=0.1, le=25, description="How closely the prompt is followed.")
    strength: Number = Field(0.75, ge=0.1, le=1, description="How much of the picture is redrawn.")
    seed: Seed = Field(RANDOM_SEED, description="Same seed, same picture; random when absent or -1.")
    img_width: Side = Field(512, description="Width in pixels; the picture is cut to fit.")
    img_height: Side = Field(512, description="Height in pixels; the picture is cut to fit.")
    base64: Flag = Field(False, description="Answer JSON with base64 PNGs instead of a JPEG.")

    def effort(self) -> tuple[int, int]:
        return self.samples, self.num_inference_steps

    def delivery(self) -> Delivery:
        return json_or_jpeg(self.base64)

    def warnings(self) -> list[str]:
        guided = self.guidance_scale > 1
        return [] if guided or not self.negative_prompt else [f"negative_prompt: {WITHOUT_GUIDANCE}"]

    def source(self) -> str | bytes:
        return self.image

    def to_request(self, picture: RGBImage | None) -> ImageToImage:
        assert picture is not None
        return ImageToImage(
            pipeline="stable-diffusion-v1-5",
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            image=image_io.cover(picture, self.img_width, self.img_height),
            strength=self.strength,
            width=self.img_width,
            height=self.img_height,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            seeds=seeds(self.seed, self.samples),
            scheduler=NOISE_SCHEDULERS[self.scheduler],
        )


router = routes(SD15ImageToImage)
