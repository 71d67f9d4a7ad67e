"""The metadata of PNG files: generation parameters, in the form that viewers of such pictures read."""

from __future__ import annotations

from pipelines.request import PictureRequest, PoseToImage, PriorTextToImage, Prompted, SafetyCheck, Upscaling


def generation_parameters(request: PictureRequest, index: int) -> dict[str, str]:
    """The metadata for the picture of ``request.seeds[index]``: one text ``parameters``, or nothing."""
    if isinstance(request, Upscaling | SafetyCheck):
        return {}
    details: dict[str, object] = {
        "Steps": request.num_inference_steps,
        "CFG scale": request.guidance_scale,
        "Seed": request.seeds[index],
        "Size": f"{request.width}x{request.height}",
        "Model": request.pipeline,
    }
    if isinstance(request, PriorTextToImage):
        details["Prior steps"] = request.prior_num_inference_steps
    elif request.scheduler.name:
        details["Sampler"] = request.scheduler.name
        if request.scheduler.sigma_schedule:
            details["Schedule type"] = request.scheduler.sigma_schedule
    if isinstance(request, Prompted) and request.upscaler:
        details["Upscaler"] = request.upscaler
    if isinstance(request, PoseToImage):
        details["Pose strength"] = request.controlnet_conditioning_scale
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in details.items()))
    return {"parameters": "\n".join(lines)}
