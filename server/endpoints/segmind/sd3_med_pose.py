"""POST /v1/sd3-med-pose and its /v2 twin: Stable Diffusion 3 medium in the pose of a photograph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Flag, Number, Seed, Text, WholeNumber, seeds
from server.endpoints.segmind.page import Delivery, InputImage, Page, json_or_jpeg
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.sizes import size_of_a_megapixel
from server.endpoints.segmind.warnings import WITHOUT_GUIDANCE

# fmt: off
Sampler = Literal[
    "euler", "euler_pp", "euler_ancestral", "euler_ancestral_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm",
    "ipndm", "ipndm_v", "deis", "ddim", "uni_pc", "uni_pc_bh2", "euler_cfg_pp", "euler_ancestral_cfg_pp",
    "p_sampler",
]
# fmt: on
SigmaSchedule = Literal["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]
ALIASES = {"euler_cfg_pp": "euler_pp", "euler_ancestral_cfg_pp": "euler_ancestral_pp", "p_sampler": "ddpm"}
GUIDED_AT_ONE = ("euler_pp", "euler_ancestral_pp", "euler_cfg_pp", "euler_ancestral_cfg_pp")
"""The samplers that use the negative prompt even at a guidance scale of 1 (CFG++)."""

SAMPLER_DESCRIPTION = (
    "How noise is removed. `heun`, `dpm_2`, `dpm_2_ancestral`, `dpmpp_2s_ancestral` and `dpmpp_sde` ask "
    "the network about twice per step, `heunpp2` three times. `dpm_adaptive` finds its own steps between "
    "the first and the last noise level of the schedule; how many evaluations it took is in the header "
    "`x-output-metadata`, and in the `metrics` of a queued request. `dpm_fast` makes one step of third "
    "order out of three steps of the schedule. "
    "`euler_pp` and `euler_ancestral_pp` (CFG++; also `euler_cfg_pp`, `euler_ancestral_cfg_pp`) steer "
    "more strongly at the same `guidance_scale`: 1 to 2 is enough. `p_sampler` is another "
    "name of `ddpm`. `lcm` is meant for distilled weights. "
    "Names with `_gpu` draw the same as without. On this model `ddim` is mathematically the same as "
    "`euler`, and `ipndm_v` the same as `lms` but for its last step."
)


class SD3MediumPose(Page):
    slug: ClassVar[str] = "sd3-med-pose"
    summary: ClassVar[str] = "Stable Diffusion 3 medium: text to image in a given pose"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page. It names few samplers (`dpmpp_2m`, "
        "`ddim`, `p_sampler`) and no largest number of samples: those are inferred."
    )
    price_millicredits: ClassVar[int] = 25
    default_steps: ClassVar[int] = 20
    example: ClassVar[Mapping[str, object]] = {
        "prompt": "Anime style illustration of a girl wearing a suit. A moon in sky. In the background we "
        "see a big rain approaching.",
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

    prompt: Text = Field(
        description="What to draw. CLIP reads 77 tokens of it, T5 256; `x-warnings` says where they stop."
    )
    negative_prompt: Text = Field("low quality,less details", description="What to keep out of the picture.")
    image: InputImage = Field(
        description="A photograph, in which the pose is looked for, or a picture of an OpenPose skeleton,"
        " which is used as it is. Where no pose detector is installed, a photograph is refused with how to"
        " install one."
    )
    num_inference_steps: WholeNumber = Field(
        20, ge=1, le=100, description="Denoising steps. Affects the price."
    )
    guidance_scale: Number = Field(7, ge=1, le=20, description="How closely the prompt is followed.")
    seed: Seed = Field(698845, description="Same seed, same picture; -1 is random.")
    samples: WholeNumber = Field(1, ge=1, le=10, description="Pictures to draw. Affects the price.")
    strength: Number = Field(0.8, ge=0, le=1, description="How closely the pose is kept.")
    sampler: Sampler = Field("dpmpp_2m", description=SAMPLER_DESCRIPTION)
    scheduler: SigmaSchedule = Field(
        "sgm_uniform", description="How noise levels are spaced: ComfyUI's schedules with SD3's shift of 3."
    )
    base64: Flag = Field(False, description="Answer JSON with base64 PNGs instead of a JPEG.")

    def effort(self) -> tuple[int, int]:
        return self.samples, self.num_inference_steps

    def delivery(self) -> Delivery:
        return json_or_jpeg(self.base64)

    def warnings(self, manifest: Manifest) -> list[str]:
        sent = "negative_prompt" in self.model_fields_set
        guided = self.guidance_scale > 1 or self.sampler in GUIDED_AT_ONE
        return [f"negative_prompt: {WITHOUT_GUIDANCE}"] if sent and not guided else []

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image}

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> PoseToImage:
        picture = pictures["image"]
        width, height = size_of_a_megapixel(picture.width, picture.height)
        return PoseToImage(
            pipeline="sd3-medium-pose",
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            image=picture,
            controlnet_conditioning_scale=self.strength,
            width=width,
            height=height,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            seeds=seeds(self.seed, self.samples),
            scheduler=SchedulerChoice(
                name=ALIASES.get(self.sampler, self.sampler), sigma_schedule=self.scheduler
            ),
        )


router = routes(SD3MediumPose)
