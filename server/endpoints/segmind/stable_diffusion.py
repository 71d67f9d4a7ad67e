"""The fields that Segmind's pages of Stable Diffusion 1.5 and XL share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypedDict

from pydantic import BeforeValidator, Field

from pipelines.errors import UnknownPipeline
from pipelines.request import SchedulerChoice
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import RANDOM_SEED, Flag, Number, Seed, Text, WholeNumber, seeds
from server.endpoints.segmind.page import Delivery, Page, Side, json_or_jpeg
from server.endpoints.segmind.warnings import WITHOUT_GUIDANCE
from server.errors import NotFound

NOISE_SCHEDULERS: Mapping[str, SchedulerChoice] = {
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
"""The noise schedulers by the names of the vendor's pages."""

OTHER_NAMES: Mapping[object, str] = {
    "dpmpp_2m": "DPM Multi",
    "dmpp_2m": "DPM Multi",
    "dpmpp_sde_ancestral": "DPM Multi",
    "dpmmp_sde_ancestral": "DPM Multi",
}
"""Names that the vendor's own SDKs send by default, two of them misspelt; the pages do not list them."""


def _documented_name(name: object) -> object:
    return OTHER_NAMES.get(name, name) if isinstance(name, str) else name


# fmt: off
Scheduler = Annotated[
    Literal[
        "DDIM", "DPM Multi", "DPM Single", "Euler a", "Euler", "Heun", "DPM2 a Karras", "DPM2 Karras", "LMS",
        "PNDM", "DDPM", "UniPC",
    ],
    BeforeValidator(_documented_name),
]
# fmt: on
SCHEDULER_DESCRIPTION = "Noise scheduler. `dpmpp_2m`, which SDKs send, is `DPM Multi`."


class Prompts(TypedDict):
    """The arguments of `pipelines.request.Prompted` that these fields decide."""

    pipeline: str
    prompt: str
    negative_prompt: str | None
    num_inference_steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    scheduler: SchedulerChoice


class StableDiffusionPage(Page):
    """A page that draws with a checkpoint of Stable Diffusion.

    Attributes:
        pipeline: the checkpoint's name in the manifest.
    """

    pipeline: ClassVar[str]
    default_steps: ClassVar[int] = 20

    prompt: Text = Field(description="What to draw, up to 2400 tokens; brackets are ordinary characters.")
    negative_prompt: Text | None = Field(None, description="What to keep out of the picture.")
    samples: WholeNumber = Field(1, ge=1, le=4, description="Pictures to draw. Affects the price.")
    scheduler: Scheduler = Field("UniPC", description=SCHEDULER_DESCRIPTION)
    num_inference_steps: WholeNumber = Field(
        20, ge=20, le=100, description="Denoising steps. Affects the price."
    )
    guidance_scale: Number = Field(7.5, ge=1, le=25, description="How closely the prompt is followed.")
    seed: Seed = Field(RANDOM_SEED, description="Same seed, same picture; random when absent or -1.")
    base64: Flag = Field(False, description="Answer JSON with base64 PNGs instead of a JPEG.")

    def effort(self) -> tuple[int, int]:
        return self.samples, self.num_inference_steps

    def delivery(self) -> Delivery:
        return json_or_jpeg(self.base64)

    def validate_names(self, manifest: Manifest) -> None:
        try:
            manifest.pipeline(self.pipeline)
        except UnknownPipeline as error:
            raise NotFound(str(error)) from error

    def warnings(self, manifest: Manifest) -> list[str]:
        in_vain = self.negative_prompt and self.guidance_scale <= 1
        return [f"negative_prompt: {WITHOUT_GUIDANCE}"] if in_vain else []

    def prompts(self) -> Prompts:
        """The fields in canonical names, with explicit seeds."""
        return {
            "pipeline": self.pipeline,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "seeds": seeds(self.seed, self.samples),
            "scheduler": NOISE_SCHEDULERS[self.scheduler],
        }


class SD15Page(StableDiffusionPage):
    """A page of Stable Diffusion 1.5."""

    pipeline: ClassVar[str] = "stable-diffusion-v1-5"
    price_millicredits: ClassVar[int] = 5

    guidance_scale: Number = Field(7.5, ge=0.1, le=25, description="How closely the prompt is followed.")


class SizedSD15Page(SD15Page):
    """A page of Stable Diffusion 1.5 whose caller says how large the result is."""

    scheduler: Scheduler = Field("DDIM", description=SCHEDULER_DESCRIPTION)
    img_width: Side = Field(512, description="Width in pixels; a picture is cut to fit.")
    img_height: Side = Field(512, description="Height in pixels; a picture is cut to fit.")


class SDXLPage(StableDiffusionPage):
    """A page of Stable Diffusion XL."""

    pipeline: ClassVar[str] = "sdxl"
    price_millicredits: ClassVar[int] = 10

    num_inference_steps: WholeNumber = Field(
        20, ge=10, le=100, description="Denoising steps. Affects the price."
    )
