"""The `meta` and the `warning` of an answer, about a request that is drawn with a checkpoint."""

from __future__ import annotations

from pipelines.request import Prompted
from pipelines.weights.entries import PipelineEntry
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.endpoints.enterprise.drawing.scheduler_notes import scheduler_meta
from server.endpoints.enterprise.wire import yes_no
from server.jobs.order import JSON

LOAD_BALANCER = (
    "loadbalancer had no effect: one server draws on all GPUs of its machine by itself; for several machines"
    " run one server on each, and a load balancer of your own that keeps a caller at one of them"
)
"""How several machines are run, for callers who have been told to pass a key of the first."""


def request_warning(fields: PictureFields, drawn: Prompted) -> str | None:
    """The answer's warning: options that have no effect on this request, and a check that is not made."""
    ineffective = fields.without_effect_but_sent()
    warnings = [f"{option} had no effect {reason}" for option, reason in ineffective.items()]
    if fields.safety_checker and not drawn.safety_checker:
        warnings.append(f"{fields.model_id} has no safety checker; nothing was checked")
    if fields.loadbalancer:
        warnings.append(LOAD_BALANCER)
    return "; ".join(warnings) or None


def request_meta(fields: PictureFields, drawn: Prompted, entry: PipelineEntry) -> dict[str, JSON]:
    """The answer's meta: the parameters as they are really drawn, under the vendor's names.

    Args:
        entry: the manifest's entry of the checkpoint.
    """
    return {
        "prompt": drawn.prompt,
        "model_id": fields.model_id,
        "negative_prompt": drawn.negative_prompt,
        "scheduler": fields.scheduler,
        **scheduler_meta(drawn.scheduler),
        "revision": {"float16": "fp16", "bfloat16": "bf16"}.get(entry.dtype, "fp32"),
        "safetychecker": yes_no(drawn.safety_checker),
        "W": fields.width,
        "H": fields.height,
        "enable_attention_slicing": "true",
        "guidance_scale": fields.guidance_scale,
        "seed": drawn.seeds[0],
        "steps": fields.num_inference_steps,
        "n_samples": fields.samples,
        "upscale": yes_no(fields.upscale),
        "highres_fix": yes_no(fields.highres_fix),
        "multi_lingual": yes_no(fields.multi_lingual),
        "panorama": yes_no(fields.panorama),
        "self_attention": yes_no(fields.self_attention),
        "embeddings": fields.embeddings_model,
        "lora": fields.lora_model,
        "outdir": "out",
        "vae": drawn.vae or _vae_of_checkpoint(fields.model_id, entry),
        **fields.own_meta(),
    }


def _vae_of_checkpoint(model_id: str, entry: PipelineEntry) -> str:
    part = entry.parts.get("vae")
    return part.hub if part and part.hub else model_id
