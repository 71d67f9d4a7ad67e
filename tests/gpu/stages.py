"""Draw one request and measure its stages: the same code for full size on a GPU and small on a CPU."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.demo.world.figure import demo_skeleton
from pipelines.denoising import step
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Picture, Sample
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, PriorTextToImage, Request, SchedulerChoice, TextToImage
from pipelines.weights.manifest import Manifest

SIDES = {
    "kandinsky-2-2": 768,
    "kolors": 1024,
    "sd3-medium-pose": 1024,
    "stable-diffusion-v1-5": 512,
    "sdxl": 1024,
}
"""Pipelines of the manifest and the side that their pages document as the default."""


def default_request(name: str, seeds: tuple[int, ...], *, side: int, steps: int, prompt: str) -> Request:
    """What the pipeline's page sends when a client says nothing more than its prompt."""
    shared: dict[str, Any] = {
        "pipeline": name,
        "prompt": prompt,
        "negative_prompt": "blurry",
        "width": side,
        "height": side,
        "num_inference_steps": steps,
        "seeds": seeds,
    }
    match name:
        case "kandinsky-2-2":
            return PriorTextToImage(
                **shared, guidance_scale=4.0, prior_num_inference_steps=steps, prior_guidance_scale=1.0
            )
        case "sd3-medium-pose":
            return PoseToImage(
                **shared,
                guidance_scale=7.0,
                image=demo_skeleton(side, side),
                controlnet_conditioning_scale=0.8,
                scheduler=SchedulerChoice(name="dpmpp_2m", sigma_schedule="sgm_uniform"),
            )
        case _:
            return TextToImage(**shared, guidance_scale=7.0)


def in_precision(manifest: Manifest, dtype: str) -> Manifest:
    """The manifest with every pipeline in one precision."""
    entries = {name: entry.model_copy(update={"dtype": dtype}) for name, entry in manifest.pipelines.items()}
    return manifest.model_copy(update={"pipelines": entries})


@dataclass
class Measurement:
    """What one request cost.

    Attributes:
        seconds: by stage: "encode", one per network that is evaluated in steps ("prior", "denoise",
            "upscale"), "decode"; "answer" where nothing is drawn.
        evaluations: of each network that is evaluated in steps.
        peak_bytes: most that was allocated on a CUDA device, by stage, weights included.
        images: what was drawn, in order of the seeds.
        texts: what was answered where nothing is drawn.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    images: list[RGBImage] = field(default_factory=list)
    texts: tuple[str, ...] = ()

    def step_seconds(self, stage: str) -> float:
        return self.seconds[stage] / self.evaluations[stage]


@torch.no_grad()
def measure(pipeline: Pipeline, request: Request, device: torch.device) -> Measurement:
    """Draw a request by itself, all its pictures in one group."""
    measured = Measurement()
    with _stage(measured, "encode", device):
        samples = pipeline.encode(request)
    while True:
        stage = samples[0].key.stage
        measured.evaluations.setdefault(stage, 0)
        with _stage(measured, stage, device):
            while not samples[0].sampler.done:
                pipeline.attach(samples[0].key)
                step.advance(samples)
                measured.evaluations[stage] += 1
        results: list[Sample | Picture] = []
        with _stage(measured, "decode", device):
            results += [sample.finish(sample) for sample in samples]
        pictures = [result for result in results if isinstance(result, Picture)]
        if pictures:
            measured.images = [picture.image for picture in pictures]
            return measured
        samples = [result for result in results if isinstance(result, Sample)]


def measure_answer(pipeline: Pipeline, request: Request, device: torch.device) -> Measurement:
    """Answer a request that needs no steps."""
    measured = Measurement()
    with _stage(measured, "answer", device):
        encoded = pipeline.encode(request)
        assert isinstance(encoded, DirectAnswer)
        measured.texts = encoded.answer().texts
    return measured


@contextmanager
def _stage(measured: Measurement, name: str, device: torch.device) -> Generator[None]:
    """Time a block to the end of what it started on the device, and note the most memory it took."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    yield
    if cuda:
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        measured.peak_bytes[name] = max(measured.peak_bytes.get(name, 0), peak)
    measured.seconds[name] = measured.seconds.get(name, 0.0) + time.perf_counter() - started


def is_a_picture(image: RGBImage, width: int, height: int | None = None) -> bool:
    """Whether it has the size asked for and is not one flat colour, as numbers out of range would make it.

    Args:
        height: None: as the width.
    """
    height = height or width
    right_size = (image.width, image.height, len(image.pixels)) == (width, height, width * height * 3)
    return right_size and len(set(image.pixels[:: max(1, width // 64)])) > 16
