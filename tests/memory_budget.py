"""Networks of full size on the meta device, and what the loop asks of the pool for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipelines.denoising.needs import NOTHING, InUse, Parts
from pipelines.denoising.pipeline import Pipeline
from pipelines.engine.mover import NoBytes
from pipelines.engine.pool import PipelinePool
from pipelines.families.kandinsky22 import Kandinsky22
from pipelines.families.kolors import Kolors
from pipelines.request import PriorTextToImage, Request, TextToImage
from pipelines.weights.entries import PipelineEntry, Source
from pipelines.weights.manifest import Manifest, load_manifest

REAL = Path(__file__).parent.parent / "weights.yaml"

_DUMMIES = {
    ("kandinsky22", "prior"): "kandinsky-2-2-prior",
    ("kandinsky22", "decoder"): "kandinsky-2-2-decoder",
    ("kolors", "pipeline"): "kolors",
    ("sd3_pose", "pipeline"): "sd3-medium",
    ("sd3_pose", "controlnet"): "sd3-pose-controlnet",
    ("sd15", "pipeline"): "stable-diffusion-v1-5",
    ("sdxl", "pipeline"): "sdxl",
    ("sdxl", "vae"): "sdxl-vae",
}
"""The shipped configuration of each part of a family."""


def dummies() -> Manifest:
    """The real manifest's pages, with networks of full size that have no numbers.

    Pose detector and safety checker are left out: their configurations do not ship.
    """
    manifest = load_manifest(REAL)
    pages = {name: _dummy(entry) for name, entry in manifest.pipelines.items() if entry.family != "mbart50"}
    return Manifest(path=manifest.path, pipelines=pages)


def _dummy(entry: PipelineEntry) -> PipelineEntry:
    parts = {
        part: Source(dummy=_DUMMIES[entry.family, part])
        for part in entry.parts
        if (entry.family, part) in _DUMMIES
    }
    return entry.model_copy(update={"parts": parts})


@dataclass
class CountedMoves(NoBytes):
    """Moves nothing and counts how often each network would have been moved to the device and away."""

    came: Counter[torch.nn.Module] = field(default_factory=Counter[torch.nn.Module])
    left: Counter[torch.nn.Module] = field(default_factory=Counter[torch.nn.Module])

    def to_device(self, module: torch.nn.Module) -> None:
        self.came[module] += 1

    def to_host(self, module: torch.nn.Module) -> None:
        self.left[module] += 1


@dataclass
class Walk:
    """Takes requests through the stages of drawing as the loop does, with networks that have no numbers.

    Attributes:
        most_bytes, most_host_bytes: the most that was on the device and on the host at any moment.
    """

    pool: PipelinePool
    most_bytes: int = 0
    most_host_bytes: int = 0

    def draw(self, request: Request) -> None:
        """Everything that the loop asks for one request; its texts are remembered as encoded."""
        assert self.pool.can_take(request, {})
        name = request.pipeline
        pipeline = self.pool.open(name)
        needs = pipeline.needs(request)
        self._bring(name, needs.encode, {})
        if any("text_encoder" in part for part in needs.encode):
            _remember_texts(pipeline, request)
        for parts in needs.denoise.values():
            self._bring(name, parts, {name: parts})
        self._bring(name, needs.finish, {name: NOTHING})

    def _bring(self, name: str, parts: Parts, in_use: InUse) -> None:
        self.pool.bring(name, parts, in_use)
        there = {part.part for part in self.pool.parts if (part.pipeline, part.place) == (name, "device")}
        assert parts <= there
        self.most_bytes = max(self.most_bytes, self.pool.used_bytes)
        self.most_host_bytes = max(self.most_host_bytes, self.pool.host_bytes)


def _remember_texts(pipeline: Pipeline, request: Request) -> None:
    """Encode a request; of what networks without numbers cannot read, the texts are kept as if they were."""
    match pipeline, request:
        case Kolors(), TextToImage():
            for text in (request.prompt, request.negative_prompt or ""):
                pipeline._texts.get(text, lambda: (torch.empty(0), torch.empty(0)))
        case Kandinsky22(), PriorTextToImage():
            texts = (request.prompt, request.negative_prompt, request.prior_guidance_scale > 1)
            pipeline._texts.get(texts, dict[str, torch.Tensor])
            pipeline._zero_embedding = torch.empty(0)
        case _:
            pipeline.encode(request)
