"""Small SD1.5 and SDXL checkpoints for the tests beside this file, drawn with and without the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising import step
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Picture, Sample
from pipelines.families.registry import open_pipeline
from pipelines.image_io import RGBImage
from pipelines.request import Request
from pipelines.weights.manifest import Manifest


def open_family(manifest: Manifest, name: str) -> Any:
    entry, folder = manifest.pipeline(name), manifest.path.parent
    checkpoint = Checkpoint(name, manifest, entry, folder, torch.device("cpu"))
    return open_pipeline(checkpoint, AdapterLibrary(manifest, manifest.path.parent))


def reference(cls: Any, manifest: Manifest, folder: str) -> Any:
    """The plain diffusers pipeline of the same files."""
    pipeline = cls.from_pretrained(manifest.path.parent / folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(family: Pipeline, request: Request) -> list[Picture]:
    """Every picture of a request, one after the other and alone."""
    encoded = family.encode(request)
    if isinstance(encoded, DirectAnswer):
        drawing = encoded.answer()
        flags = drawing.flagged or (None,) * len(drawing.images)
        return [
            Picture(image, flag, drawing.warnings) for image, flag in zip(drawing.images, flags, strict=True)
        ]
    return [finish(sample) for sample in encoded if advance_to_the_end(family, sample)]


def advance_to_the_end(family: Pipeline, sample: Sample) -> bool:
    with torch.no_grad():
        while not sample.sampler.done:
            family.attach(sample.key)
            step.advance([sample])
    return True


def finish(sample: Sample) -> Picture:
    picture = sample.finish(sample)
    assert isinstance(picture, Picture)
    return picture


def draw_moving_group(family: Pipeline, requests: Sequence[Request]) -> list[np.ndarray]:
    """One request joins at each turn, whoever is done leaves."""
    waiting = list(enumerate(requests))
    running: list[tuple[int, Sample]] = []
    done: dict[int, np.ndarray] = {}
    with torch.no_grad():
        while waiting or running:
            if waiting:
                index, request = waiting.pop(0)
                running.append((index, family.encode(request)[0]))
            family.attach(running[0][1].key)
            step.advance([sample for _, sample in running])
            done |= {index: array(finish(sample).image) for index, sample in running if sample.sampler.done}
            running = [member for member in running if not member[1].sampler.done]
    return [done[index] for index in range(len(requests))]


def array(image: RGBImage) -> np.ndarray:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def image_of(picture: np.ndarray) -> RGBImage:
    return RGBImage(picture.shape[1], picture.shape[0], picture.tobytes())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())
