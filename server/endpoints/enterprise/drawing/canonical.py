"""Translation of the fields that draw with a checkpoint into canonical names."""

from __future__ import annotations

from typing import TypedDict

from pipelines.request import Lora, Replacement, SchedulerChoice
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.checkpoints import checkpoint
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.endpoints.enterprise.drawing.phrases import enhanced_negative_prompt, enhanced_prompt
from server.endpoints.fields import seeds

TOKEN_MERGING_RATIO = 0.5
"""The part of the network's tokens that `tomesd` merges, 0 to 1."""


class Canonical(TypedDict):
    """The arguments of `pipelines.request.Prompted`."""

    pipeline: str
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    scheduler: SchedulerChoice
    prompt_weighting: bool
    clip_skip: int | None
    loras: tuple[Lora, ...]
    embeddings: tuple[str, ...]
    vae: str | None
    token_merging_ratio: float
    safety_checker: bool
    replacement: Replacement
    highres_fix: bool
    upscaler: str | None
    self_attention: bool
    panorama: bool


def canonical(fields: PictureFields, manifest: Manifest) -> Canonical:
    """The fields in canonical names, with explicit seeds, once they were validated."""
    negative = fields.negative_prompt
    entry = checkpoint(manifest, fields.model_id)
    return {
        "pipeline": fields.model_id,
        "prompt": enhanced_prompt(fields.prompt) if fields.enhance_prompt else fields.prompt,
        "negative_prompt": enhanced_negative_prompt(negative) if fields.enhance_prompt else negative,
        "width": fields.width,
        "height": fields.height,
        "num_inference_steps": fields.num_inference_steps,
        "guidance_scale": fields.guidance_scale,
        "seeds": seeds(fields.seed, fields.samples),
        "scheduler": SchedulerChoice(
            name=fields.scheduler,
            use_karras_sigmas=fields.use_karras_sigmas,
            algorithm_type=fields.algorithm(),
        ),
        "prompt_weighting": True,
        "clip_skip": fields.clip_skip - 1 or None,
        "loras": fields.loras(),
        "embeddings": tuple(fields.embeddings()),
        "vae": fields.own_vae(),
        "token_merging_ratio": TOKEN_MERGING_RATIO if fields.tomesd else 0.0,
        "safety_checker": fields.safety_checker and "safety_checker" in entry.parts,
        "replacement": fields.safety_checker_type,
        "highres_fix": fields.highres_fix,
        "upscaler": next(iter(manifest.upscalers)) if fields.upscale else None,
        "self_attention": fields.self_attention,
        "panorama": fields.panorama,
    }
