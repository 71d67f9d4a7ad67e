"""POST /v1/kolors and its /v2 twin: text to image with Kolors, prompts in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import SchedulerChoice, TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import RANDOM_SEED, Flag, Number, Seed, Text, WholeNumber, seeds
from server.endpoints.segmind.page import PNG_IN_JSON, Delivery, Page, delivery_warnings
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.warnings import WITHOUT_GUIDANCE
from server.jobs.order import PictureFormat

Scheduler = Literal[
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepScheduler_SDE_karras",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
]
PICTURE_FORMATS: Mapping[str, PictureFormat] = {"webp": "webp", "jpg": "jpeg", "jpeg": "jpeg", "png": "png"}


def noise_scheduler(name: Scheduler) -> SchedulerChoice:
    """The noise scheduler of a documented name; all names but one are diffusers' own."""
    if name == "DPMSolverMultistepScheduler_SDE_karras":
        return SchedulerChoice(
            name="DPMSolverMultistepScheduler", use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"
        )
    return SchedulerChoice(name=name)


class KolorsPage(Page, title="Kolors"):
    slug: ClassVar[str] = "kolors"
    summary: ClassVar[str] = "Kolors: text to image"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page, but for `base64`, which a gateway "
        "sends to every page, and the names of the schedulers, which are inferred. The page prints a "
        'default seed beside the words "random by default"; it is random.'
    )
    price_millicredits: ClassVar[int] = 20
    default_steps: ClassVar[int] = 25
    media_types: ClassVar[tuple[str, ...]] = ("image/webp", "image/jpeg", "image/png")
    example: ClassVar[Mapping[str, object]] = {
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

    cfg: Number = Field(6, ge=0, le=20, description="Guidance scale: how closely the prompt is followed.")
    seed: Seed = Field(RANDOM_SEED, description="Same seed, same picture; random when absent or -1.")
    steps: WholeNumber = Field(25, ge=1, le=50, description="Denoising steps. Affects the price.")
    width: WholeNumber = Field(1024, ge=512, le=2048, description="Width in pixels.")
    height: WholeNumber = Field(1024, ge=512, le=2048, description="Height in pixels.")
    prompt: Text = Field(
        description="What to draw, in Chinese or English. ChatGLM reads 256 tokens of it; `x-warnings` says"
        " what is left out of a longer one."
    )
    scheduler: Scheduler = Field("EulerDiscreteScheduler", description="Noise scheduler.")
    output_format: Literal["webp", "jpg", "jpeg", "png"] = Field("webp", description="Format of the picture.")
    output_quality: WholeNumber = Field(80, ge=0, le=100, description="Of JPEG and WebP; 100 is best.")
    negative_prompt: Text = Field("", description="What to keep out of the picture; 256 tokens, too.")
    number_of_images: WholeNumber = Field(1, ge=1, le=10, description="Pictures to draw. Affects the price.")
    base64: Flag = Field(
        False,
        description="Answer JSON with base64 PNGs, whatever `output_format` says. Not on the vendor's page.",
    )

    def effort(self) -> tuple[int, int]:
        return self.number_of_images, self.steps

    def delivery(self) -> Delivery:
        if self.base64:
            return PNG_IN_JSON
        return Delivery(PICTURE_FORMATS[self.output_format], self.output_quality)

    def warnings(self, manifest: Manifest) -> list[str]:
        in_vain = self.negative_prompt and self.cfg <= 1
        without_guidance = [f"negative_prompt: {WITHOUT_GUIDANCE}"] if in_vain else []
        return without_guidance + delivery_warnings(self, "output_format", "output_quality")

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> TextToImage:
        return TextToImage(
            pipeline="kolors",
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width=self.width,
            height=self.height,
            num_inference_steps=self.steps,
            guidance_scale=self.cfg,
            seeds=seeds(self.seed, self.number_of_images),
            scheduler=noise_scheduler(self.scheduler),
        )


router = routes(KolorsPage)
