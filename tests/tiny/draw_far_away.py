"""Draws with every family and noise scheduler on the far device, and prints what came of it as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipelines.demo.world.figure import demo_skeleton
from pipelines.denoising.loop import Loop
from pipelines.denoising.sample import Sample
from pipelines.denoising.sampler import Sampler
from pipelines.engine.pool import PipelinePool
from pipelines.families.kandinsky22 import UnCLIPSampler
from pipelines.image_io import RGBImage
from pipelines.messages import Failed
from pipelines.request import (
    ImageToImage,
    Lora,
    PoseToImage,
    PriorTextToImage,
    Request,
    Rewriting,
    SchedulerChoice,
    TextToImage,
)
from pipelines.schedulers.flow.sampler import SAMPLERS, make_sampler
from pipelines.schedulers.names import NAMES
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler
from pipelines.weights.manifest import load_manifest
from tests.tiny.far_device import WAITS, far_device

SIDE = 64
PICTURE = RGBImage(SIDE, SIDE, bytes(range(256)) * (SIDE * SIDE * 3 // 256))
FROM_A_PICTURE = ("DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "KarrasVeScheduler")
STEPS = 6
SCHEDULE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SHARED: dict[str, Any] = {
    "prompt": "a cat",
    "negative_prompt": "blurry",
    "width": SIDE,
    "height": SIDE,
    "seeds": (1,),
}


def requests(pipeline: str) -> Iterator[Request]:
    """What the pipeline can be asked for, few steps each."""
    match pipeline:
        case "kandinsky-2-2":
            plain = PriorTextToImage(
                pipeline=pipeline,
                **SHARED,
                num_inference_steps=3,
                guidance_scale=4.0,
                prior_num_inference_steps=3,
                prior_guidance_scale=4.0,
            )
            yield from (plain, replace(plain, negative_prompt=None, prior_guidance_scale=1.0))
        case "sd3-medium-pose":
            yield PoseToImage(
                pipeline=pipeline,
                **SHARED,
                num_inference_steps=3,
                guidance_scale=7.0,
                image=demo_skeleton(SIDE, SIDE),
                controlnet_conditioning_scale=0.8,
            )
        case "mbart-50":
            yield Rewriting(pipeline=pipeline, texts=("ein roter Fuchs im Schnee",))
        case _:
            plain = TextToImage(pipeline=pipeline, **SHARED, num_inference_steps=3, guidance_scale=7.0)
            yield plain
            if pipeline == "stable-diffusion-v1-5":
                yield from _of_sd15(plain)


def _of_sd15(plain: TextToImage) -> Iterator[Request]:
    for name in FROM_A_PICTURE:
        yield ImageToImage(
            pipeline=plain.pipeline,
            **SHARED,
            num_inference_steps=4,
            guidance_scale=7.0,
            image=PICTURE,
            strength=0.5,
            scheduler=SchedulerChoice(name=name),
        )
    yield replace(plain, loras=(Lora(name="more_details", scale=0.6),))
    yield replace(plain, embeddings=("night_scene",), prompt="a night_scene", clip_skip=1)
    yield replace(plain, vae="sd-vae-ft-mse", token_merging_ratio=0.5)


def samplers(device: torch.device) -> dict[str, Sampler]:
    """Every noise scheduler of every family, at its start."""
    found: dict[str, Sampler] = {"UnCLIP": UnCLIPSampler({}, STEPS, device)}
    for name in NAMES:
        for karras in (False, True):
            scheduler = make_scheduler(SchedulerChoice(name=name, use_karras_sigmas=karras), SCHEDULE)
            found[f"{name} {karras}"] = DiffusersSampler(scheduler, STEPS, device)
    for name in SAMPLERS:
        found[name] = make_sampler(SchedulerChoice(name=name), STEPS, device)
    return found


def sample(sampler: Sampler, device: torch.device, dtype: torch.dtype) -> bool:
    """Go all the way with a made-up network; whether every tensor was right for it and finite."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn((1, 4, 8, 8), generator=generator).to(device, dtype)
    if isinstance(sampler, DiffusersSampler):
        latents = sampler.from_noise(latents)
    right = True
    while not sampler.done:
        seen = sampler.model_input(latents)
        right &= (seen.dtype, seen.device, sampler.timestep.device) == (dtype, device, device)
        latents = sampler.step((seen * 0.1).to(dtype), latents, generator)
        right &= latents.dtype == dtype and bool(torch.isfinite(latents).all())
    return right


def draw(pool: PipelinePool, device: torch.device, wanted: list[Request]) -> dict[str, list[str]]:
    """Draw all requests in moving groups; what failed, changed its type, or waited."""
    loop = Loop(pool, 10**9, device=device)
    for number, request in enumerate(wanted):
        loop.submit(str(number), request)
    found: dict[str, list[str]] = {"failed": [], "types": [], "waits": []}
    while not loop.idle:
        before, waited = _samples(loop), len(WAITS)
        events = loop.turn()
        samples = _samples(loop)
        if samples and samples == before:  # nothing but a step: no picture was begun or finished
            found["waits"] += WAITS[waited:]
        found["types"] += [
            type(sample.sampler).__name__ for sample in samples if sample.latents.dtype != torch.float16
        ]
        found["failed"] += [
            f"{wanted[int(event.ticket_id)]}: {event.error}" for event in events if isinstance(event, Failed)
        ]
    return found


def _samples(loop: Loop) -> list[Sample]:
    """What is being drawn, in the order of its requests."""
    return [
        sample for ticket in loop._running.values() for sample in ticket.samples if not sample.sampler.done
    ]


def main(manifest_path: Path) -> None:
    manifest = load_manifest(manifest_path)
    half = {
        name: entry.model_copy(update={"dtype": "float16", "resident": False})
        for name, entry in manifest.pipelines.items()
    }
    manifest = manifest.model_copy(update={"pipelines": half})
    report: dict[str, dict[str, list[str]]] = {}
    with far_device() as device:
        wrong = [name for name, each in samplers(device).items() if not sample(each, device, torch.float16)]
        report["noise schedulers"] = {"failed": wrong, "types": [], "waits": []}
        pool = PipelinePool(manifest, Path(), device, budget_bytes=10**12, host_budget_bytes=10**12)
        for name in manifest.pipelines:
            report[name] = draw(pool, device, list(requests(name)))
            pool.relieve({})
            report[f"{name} after a stay in host memory"] = draw(pool, device, list(requests(name))[:1])
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
