"""Segmind's model pages: every parameter, its value, and what becomes of it."""

from __future__ import annotations

from pipelines.request import SchedulerChoice
from tests.contract.parameters.effects import (
    SENT,
    Effect,
    answer,
    drawings,
    drawn,
    picture,
    sent_picture,
    shown,
    status,
)
from tests.contract.parameters.live_values import a_new_word, an_api_key
from tests.contract.parameters.rows import Page, every, row

RED, GREEN = (200, 30, 30), (30, 200, 30)

SIDES = (512, 576, 640, 704, 768, 832, 896, 960, 1024)

CALLER = (
    row("x-api-key", an_api_key, status(200), drawings(1)),
    row("Idempotency-Key", a_new_word, drawings(1), times=2),
)

KANDINSKY = Page(
    "/v1/kandinsky2.2-txt2img",
    {"prompt": "a cat", "seed": 7, "img_width": 512, "img_height": 512},
    (
        *CALLER,
        row("prompt", "a dog", drawn(prompt=SENT)),
        row("negative_prompt", "rain", drawn(negative_prompt=SENT)),
        row("samples", 3, drawn(seeds=(7, 8, 9))),
        row("num_inference_steps", 21, drawn(num_inference_steps=SENT)),
        *every("img_width", {side: drawn(width=side) for side in SIDES}, default=768),
        *every("img_height", {side: drawn(height=side) for side in SIDES}, default=768),
        row("prior_steps", 3, drawn(prior_num_inference_steps=SENT)),
        row("seed", 11, drawn(seeds=(11,))),
        row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
    ),
)


def noise_scheduler(name: str, algorithm_type: str | None = None, *, karras: bool | None = None) -> Effect:
    """The engine is asked for this noise scheduler of diffusers."""
    return drawn(
        scheduler=SchedulerChoice(name=name, algorithm_type=algorithm_type, use_karras_sigmas=karras)
    )


KOLORS = Page(
    "/v1/kolors",
    {"prompt": "a cat", "seed": 7, "width": 512, "height": 512, "output_format": "jpg"},
    (
        *CALLER,
        row("cfg", 3, drawn(guidance_scale=SENT)),
        row("seed", 11, drawn(seeds=(11,))),
        row("steps", 3, drawn(num_inference_steps=SENT)),
        row("width", 600, drawn(width=SENT), picture(size=(600, 512))),
        row("height", 600, drawn(height=SENT), picture(size=(512, 600))),
        row("prompt", "a dog", drawn(prompt=SENT)),
        *every(
            "scheduler",
            {
                "EulerDiscreteScheduler": noise_scheduler("EulerDiscreteScheduler"),
                "EulerAncestralDiscreteScheduler": noise_scheduler("EulerAncestralDiscreteScheduler"),
                "DPMSolverMultistepScheduler": noise_scheduler("DPMSolverMultistepScheduler"),
                "DPMSolverMultistepScheduler_SDE_karras": noise_scheduler(
                    "DPMSolverMultistepScheduler", "sde-dpmsolver++", karras=True
                ),
                "UniPCMultistepScheduler": noise_scheduler("UniPCMultistepScheduler"),
                "DEISMultistepScheduler": noise_scheduler("DEISMultistepScheduler"),
            },
            default="EulerDiscreteScheduler",
        ),
        *every(
            "output_format",
            {
                "webp": picture(format="WEBP", content_type="image/webp"),
                "jpg": picture(format="JPEG", content_type="image/jpeg"),
                "jpeg": picture(format="JPEG", content_type="image/jpeg"),
                "png": picture(format="PNG", content_type="image/png"),
            },
            default="webp",
        ),
        # The table of the JPEG standard begins with 16; quality 25 doubles it, and 80 makes it 6.
        row("output_quality", 25, picture(quantizer=32)),
        row("negative_prompt", "rain", drawn(negative_prompt=SENT)),
        row("number_of_images", 3, drawn(seeds=(7, 8, 9))),
        row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
    ),
)

SAMPLERS = (
    "euler", "euler_pp", "euler_ancestral", "euler_ancestral_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm",
    "ipndm", "ipndm_v", "deis", "ddim", "uni_pc", "uni_pc_bh2",
)  # fmt: skip
"""The samplers that the engine knows by the same name."""

SIGMA_SCHEDULES = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta")


def sampler(name: str = "dpmpp_2m", sigma_schedule: str = "sgm_uniform") -> Effect:
    """The engine is asked for this flow-matching sampler with these noise levels."""
    return drawn(scheduler=SchedulerChoice(name=name, sigma_schedule=sigma_schedule))


SD3 = Page(
    "/v1/sd3-med-pose",
    {"prompt": "a cat", "seed": 7, "image": sent_picture(RED)},
    (
        *CALLER,
        row("prompt", "a dog", drawn(prompt=SENT)),
        row("negative_prompt", "rain", drawn(negative_prompt=SENT)),
        row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 8, 8))),
        row("num_inference_steps", 3, drawn(num_inference_steps=SENT)),
        row("guidance_scale", 3.5, drawn(guidance_scale=SENT)),
        row("seed", 11, drawn(seeds=(11,))),
        row("samples", 3, drawn(seeds=(7, 8, 9))),
        row("strength", 0.25, drawn(controlnet_conditioning_scale=SENT)),
        *every(
            "sampler",
            {
                **{name: sampler(name) for name in SAMPLERS},
                "euler_cfg_pp": sampler("euler_pp"),
                "euler_ancestral_cfg_pp": sampler("euler_ancestral_pp"),
                "p_sampler": sampler("ddpm"),
            },
            default="dpmpp_2m",
        ),
        *every(
            "scheduler",
            {name: sampler(sigma_schedule=name) for name in SIGMA_SCHEDULES},
            default="sgm_uniform",
        ),
        row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
    ),
)

NOISE_SCHEDULER_ROWS = {
    "DDIM": noise_scheduler("DDIMScheduler"),
    "DPM Multi": noise_scheduler("DPMSolverMultistepScheduler"),
    "DPM Single": noise_scheduler("DPMSolverSinglestepScheduler"),
    "Euler a": noise_scheduler("EulerAncestralDiscreteScheduler"),
    "Euler": noise_scheduler("EulerDiscreteScheduler"),
    "Heun": noise_scheduler("HeunDiscreteScheduler"),
    "DPM2 a Karras": noise_scheduler("KDPM2AncestralDiscreteScheduler", karras=True),
    "DPM2 Karras": noise_scheduler("KDPM2DiscreteScheduler", karras=True),
    "LMS": noise_scheduler("LMSDiscreteScheduler"),
    "PNDM": noise_scheduler("PNDMScheduler"),
    "DDPM": noise_scheduler("DDPMScheduler"),
    "UniPC": noise_scheduler("UniPCMultistepScheduler"),
}
"""The noise scheduler of each name on the pages of Stable Diffusion."""

SD15 = Page(
    "/v1/sd1.5-img2img",
    {"prompt": "a cat", "seed": 7, "image": sent_picture(RED)},
    (
        *CALLER,
        row("image", sent_picture(GREEN), drawn(image=shown(GREEN, 512, 512))),
        row("samples", 3, drawn(seeds=(7, 8, 9))),
        row("prompt", "a dog", drawn(prompt=SENT)),
        row("negative_prompt", "rain", drawn(negative_prompt=SENT)),
        *every("scheduler", NOISE_SCHEDULER_ROWS, default="DDIM"),
        row("num_inference_steps", 21, drawn(num_inference_steps=SENT)),
        row("guidance_scale", 3.5, drawn(guidance_scale=SENT)),
        row("strength", 0.25, drawn(strength=SENT)),
        row("seed", 11, drawn(seeds=(11,))),
        *every(
            "img_width", {side: drawn(width=side, image=shown(RED, side, 512)) for side in SIDES}, default=512
        ),
        *every(
            "img_height",
            {side: drawn(height=side, image=shown(RED, 512, side)) for side in SIDES},
            default=512,
        ),
        row("base64", True, answer(status="Success", image_format="png"), picture(format="PNG")),
    ),
)

PAGES = (KANDINSKY, KOLORS, SD3, SD15)
