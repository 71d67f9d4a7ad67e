"""The four enterprise pages that draw with a checkpoint: every parameter, its value, what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.request import Control, Lora, SchedulerChoice
from server.endpoints.enterprise.drawing.meta import LOAD_BALANCER
from tests.contract.parameters.effects import (
    SENT,
    Effect,
    announced,
    answer,
    drawings,
    drawn,
    kept_for_two_days,
    outputs,
    picture,
    sent_picture,
    shown,
)
from tests.contract.parameters.live_values import a_new_word, a_receiver, an_api_key
from tests.contract.parameters.rows import Page, Row, Value, every, row
from tests.contract.parameters.stage import ENTERPRISE

RED, GREEN, WHITE = (200, 30, 30), (30, 200, 30), (255, 255, 255)

PLAIN: dict[str, Value] = {
    "model_id": "photographs",
    "prompt": "a cat",
    "enhance_prompt": "no",
    "seed": 7,
    "width": 256,
    "height": 256,
}

SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "DPMSolverSinglestepScheduler", "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler", "DDIMInverseScheduler", "DEISMultistepScheduler", "IPNDMScheduler",
    "KarrasVeScheduler", "ScoreSdeVeScheduler", "LCMScheduler",
)  # fmt: skip

ALGORITHM_TYPES = {
    "none": None,
    "dpmsolver": "dpmsolver",
    "dpmsolver++": "dpmsolver++",
    "dpmsolver+++": "dpmsolver++",
    "sde-dpmsolver": "sde-dpmsolver",
    "sde-dpmsolver++": "sde-dpmsolver++",
}
"""Each documented value, and what diffusers calls it."""

REPLACEMENTS = ("black", "blur", "pixelate", "sensitive_content_text")


def noise_scheduler(
    name: str = "UniPCMultistepScheduler", algorithm_type: str | None = None, *, karras: bool = True
) -> Effect:
    """The engine is asked for this noise scheduler of diffusers."""
    return drawn(
        scheduler=SchedulerChoice(name=name, use_karras_sigmas=karras, algorithm_type=algorithm_type)
    )


def shared(steps: int = 20, replacement: str = "black") -> Iterator[Row]:
    """The rows of every page that draws with a checkpoint.

    Args:
        steps, replacement: the page's defaults of num_inference_steps and safety_checker_type.
    """
    yield row("key", an_api_key, answer(status="success"), drawings(1))
    yield row("Idempotency-Key", a_new_word, drawings(1), times=2)
    yield row("webhook", a_receiver, announced(url=SENT, status="success"))
    yield row("track_id", "mine", answer(track_id=SENT))
    yield row("track_id", 12, answer(track_id=SENT))
    yield row("model_id", "drawings", drawn(pipeline=SENT))
    yield row("prompt", "a dog", drawn(prompt=SENT))
    yield row("negative_prompt", "rain", drawn(negative_prompt=SENT))
    yield row("panorama", True, drawn(panorama=True))
    yield row("width", 264, drawn(width=SENT), picture(size=(264, 256)))
    yield row("height", 264, drawn(height=SENT), picture(size=(256, 264)))
    yield row("samples", 3, drawn(seeds=(7, 8, 9)), outputs(3))
    yield row("num_inference_steps", steps + 1, drawn(num_inference_steps=SENT))
    yield row("guidance_scale", 3.5, drawn(guidance_scale=SENT))
    yield row("seed", 11, drawn(seeds=(11,)))
    yield from every(
        "scheduler",
        {name: noise_scheduler(name) for name in SCHEDULERS},
        default="UniPCMultistepScheduler",
    )
    yield row("safety_checker", False, drawn(safety_checker=False))
    yield from every(
        "safety_checker_type", {word: drawn(replacement=word) for word in REPLACEMENTS}, default=replacement
    )
    yield row("enhance_prompt", False, drawn(prompt="a cat", negative_prompt=""))
    yield row("multi_lingual", True, drawn(prompt="A CAT"))
    yield row("self_attention", True, drawn(self_attention=True))
    yield row("upscale", True, drawn(upscaler="fast"))
    yield row("highres_fix", True, drawn(highres_fix=True))
    yield row("embeddings_model", "bad-hands", drawn(embeddings=("bad-hands",)))
    yield row("lora_model", "pencil", drawn(loras=(Lora(name="pencil"),)))
    yield row(
        "lora_strength",
        0.5,
        drawn(loras=(Lora(name="pencil", scale=0.5),)),
        beside={"lora_model": "pencil"},
    )
    yield row(
        "lora_strength",
        "0.5,0.25",
        drawn(loras=(Lora(name="pencil", scale=0.5), Lora(name="more_details", scale=0.25))),
        beside={"lora_model": "pencil,more_details"},
    )
    yield row("clip_skip", 3, drawn(clip_skip=2))
    yield row("tomesd", False, drawn(token_merging_ratio=0.0))
    yield row("use_karras_sigmas", False, noise_scheduler(karras=False))
    yield from every(
        "algorithm_type",
        {
            name: noise_scheduler("DPMSolverMultistepScheduler", meant)
            for name, meant in ALGORITHM_TYPES.items()
        },
        default="none",
        beside={"scheduler": "DPMSolverMultistepScheduler"},
    )
    yield row("loadbalancer", True, answer(warning=LOAD_BALANCER))
    yield row("vae", "soft", drawn(vae=SENT))
    yield row("base64", True, picture(content_type="text/plain"))
    yield row("temp", True, kept_for_two_days(False))


TEXT2IMG = Page(f"{ENTERPRISE}/text2img", PLAIN, (*shared(),))

IMG2IMG = Page(
    f"{ENTERPRISE}/img2img",
    {**PLAIN, "init_image": sent_picture(RED)},
    (
        *shared(21, "sensitive_content_text"),
        row("init_image", sent_picture(GREEN), drawn(image=shown(GREEN, 256, 256))),
        row("strength", 0.25, drawn(strength=SENT)),
    ),
)

INPAINT = Page(
    f"{ENTERPRISE}/inpaint",
    {**PLAIN, "init_image": sent_picture(RED), "mask_image": sent_picture(WHITE)},
    (
        *shared(replacement="sensitive_content_text"),
        row("init_image", sent_picture(GREEN), drawn(image=shown(GREEN, 256, 256))),
        row("mask_image", sent_picture(GREEN), drawn(mask=shown(GREEN, 256, 256))),
        row("strength", 0.25, drawn(strength=SENT)),
    ),
)


def control(
    name: str = "canny",
    preprocessor: str | None = None,
    *,
    colour: tuple[int, int, int] = RED,
    scale: float = 1.0,
) -> Control:
    """One of the ControlNets that the engine is asked for."""
    return Control(name=name, image=shown(colour, 256, 256), preprocessor=preprocessor, scale=scale)


CONTROLNET = Page(
    f"{ENTERPRISE}/controlnet",
    {**PLAIN, "controlnet_model": "canny", "init_image": sent_picture(RED)},
    (
        *shared(21),
        row("controlnet_model", "depth", drawn(controls=(control("depth"),))),
        row(
            "controlnet_type",
            "hed",
            drawn(controls=(control(preprocessor="hed"),)),
            beside={"auto_hint": "yes"},
        ),
        row("auto_hint", True, drawn(controls=(control(preprocessor="canny"),))),
        row("guess_mode", True, drawn(guess_mode=True)),
        row("controlnet_conditioning_scale", 0.5, drawn(controls=(control(scale=0.5),))),
        row(
            "controlnet_conditioning_scale",
            "0.5,1.5",
            drawn(controls=(control(scale=0.5), control("depth", scale=1.5))),
            beside={"controlnet_model": "canny,depth"},
        ),
        row("init_image", sent_picture(GREEN), drawn(controls=(control(colour=GREEN),))),
        row(
            "control_image",
            sent_picture(GREEN),
            drawn(kind="image_to_image", image=shown(RED, 256, 256), controls=(control(colour=GREEN),)),
        ),
        row("mask_image", sent_picture(WHITE), drawn(kind="inpainting", mask=shown(WHITE, 256, 256))),
        row("strength", 0.25, drawn(strength=SENT), beside={"control_image": sent_picture(GREEN)}),
    ),
)

PAGES = (TEXT2IMG, IMG2IMG, INPAINT, CONTROLNET)
