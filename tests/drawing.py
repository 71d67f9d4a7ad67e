"""Draws requests of any family on small checkpoints: alone, among others that come and go, in the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising import step
from pipelines.denoising.loop import Loop
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Picture, Sample
from pipelines.drawing import Drawing
from pipelines.families.registry import open_pipeline
from pipelines.group import GroupKey
from pipelines.image_io import RGBImage
from pipelines.messages import Drawn, Event, Failed
from pipelines.request import Request, TextToImage
from pipelines.weights.manifest import Manifest


def open_family(
    manifest: Manifest, name: str, *, dtype: str | None = None, weights: Path | None = None
) -> Any:
    """One pipeline of a manifest on the CPU.

    Args:
        dtype: the entry's own when None.
        weights: where downloads would lie; the manifest's folder when None.
    """
    entry = manifest.pipeline(name)
    if dtype:
        entry = entry.model_copy(update={"dtype": dtype})
    weights = weights or manifest.path.parent
    checkpoint = Checkpoint(name, manifest, entry, weights, torch.device("cpu"))
    return open_pipeline(checkpoint, AdapterLibrary(manifest, weights))


def small_request(**changes: Any) -> TextToImage:
    """A picture of SD1.5 that is drawn in a moment, unless changes say something else."""
    values: dict[str, Any] = {
        "pipeline": "stable-diffusion-v1-5",
        "prompt": "a red fox",
        "width": 64,
        "height": 64,
        "num_inference_steps": 3,
        "guidance_scale": 7.5,
        "seeds": (1024,),
    }
    return TextToImage(**values | changes)


def reference(cls: Any, manifest: Manifest, folder: str) -> Any:
    """The plain diffusers pipeline of the same files."""
    pipeline = cls.from_pretrained(manifest.path.parent / folder)
    pipeline.set_progress_bar_config(disable=True)
    for network in pipeline.components.values():
        for tensor in network.parameters() if isinstance(network, torch.nn.Module) else ():
            tensor.data = tensor.data.clone()  # in the mapping of a file kernels round otherwise
    return pipeline


def drawn_plainly(plain: Any, request: TextToImage, **more: Any) -> np.ndarray:
    """The first picture of a request, drawn by a plain diffusers pipeline."""
    return np.asarray(
        plain(
            request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.width,
            height=request.height,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=seeded(request.seeds[0]),
            **more,
        ).images[0]
    )


def draw(family: Pipeline, request: Request) -> list[Picture]:
    """Every picture of a request, one after the other and alone, through all of its stages."""
    encoded = family.encode(request)
    if isinstance(encoded, DirectAnswer):
        answer = encoded.answer()
        flags = answer.flagged or (None,) * len(answer.images)
        return [
            Picture(image, flag, answer.warnings) for image, flag in zip(answer.images, flags, strict=True)
        ]
    pictures: list[Picture] = []
    for sample in encoded:
        part: Any = sample
        while isinstance(part, Sample):
            part = part.finish(advance_to_the_end(family, part))
        assert isinstance(part, Picture)
        pictures.append(part)
    return pictures


def draw_images(family: Pipeline, request: Request) -> list[RGBImage]:
    """What `draw` draws, without what is said of it."""
    return [picture.image for picture in draw(family, request)]


def draw_alone(family: Pipeline, request: Request) -> list[np.ndarray]:
    """What `draw` draws, as (height, width, 3) bytes."""
    return [array(image) for image in draw_images(family, request)]


def advance_to_the_end(family: Pipeline, sample: Sample) -> Sample:
    """The same sample, all of whose steps are made."""
    with torch.no_grad():
        while not sample.sampler.done:
            family.attach(sample.key)
            step.advance([sample])
    return sample


def finish(sample: Sample) -> Picture:
    picture = sample.finish(sample)
    assert isinstance(picture, Picture)
    return picture


@torch.no_grad()
def draw_arriving(
    family: Pipeline, arrivals: Iterable[tuple[int, Request]]
) -> tuple[list[list[np.ndarray]], list[list[GroupKey]]]:
    """Draw requests that join at the given turns; whoever is done leaves, or goes on to its next stage.

    Returns:
        The pictures of each request, and for each turn the groups of all samples that were drawn then.
    """
    awaited = list(arrivals)
    pictures: list[dict[int, np.ndarray]] = [{} for _ in awaited]
    running: list[tuple[int, Sample]] = []
    turns: list[list[GroupKey]] = []
    while running or len(turns) <= max(joins for joins, _ in awaited):
        for which, (joins, request) in enumerate(awaited):
            if joins == len(turns):
                running += [(which, sample) for sample in family.encode(request)]
        turns.append([sample.key for _, sample in running])
        for key in dict.fromkeys(turns[-1]):
            family.attach(key)
            step.advance([sample for _, sample in running if sample.key == key])
        staying: list[tuple[int, Sample]] = []
        for which, sample in running:
            part = sample.finish(sample) if sample.sampler.done else sample
            if isinstance(part, Picture):
                pictures[which][sample.index] = array(part.image)
            else:
                assert isinstance(part, Sample)
                staying.append((which, part))
        running = staying
    return [[drawn[index] for index in sorted(drawn)] for drawn in pictures], turns


def draw_moving_group(family: Pipeline, requests: Sequence[Request]) -> list[np.ndarray]:
    """The first picture of each request, of which one joins the same group at each turn."""
    pictures, turns = draw_arriving(family, enumerate(requests))
    assert len({key for turn in turns for key in turn}) == 1
    return [drawn[0] for drawn in pictures]


def events_of(loop: Loop, requests: Mapping[str, Request]) -> list[Event]:
    """All that the loop says of requests that are handed over together."""
    for name, each in requests.items():
        loop.submit(name, each)
    events: list[Event] = []
    while not loop.idle:
        events += loop.turn()
    return events


def drawings(events: list[Event]) -> dict[str, Drawing]:
    """What was drawn, by request; none may have failed."""
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.ticket_id: event.drawing for event in events if isinstance(event, Drawn)}


def array(image: RGBImage) -> np.ndarray:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def image_of(picture: np.ndarray) -> RGBImage:
    return RGBImage(picture.shape[1], picture.shape[0], picture.tobytes())


def digests(folder: Path) -> dict[str, str]:
    """What every file below a folder consists of, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())
