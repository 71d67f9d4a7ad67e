"""What it costs to put a LoRA on the small checkpoint: read from its file, and from the cache.

Run: ``python -m tests.benchmarks.adapters``. Prints the median of several rounds in ms of processor time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.demo.build import ensure
from pipelines.denoising.pipeline import Pipeline
from pipelines.families.registry import open_pipeline
from pipelines.group import group_key
from pipelines.request import Lora, TextToImage
from pipelines.weights.manifest import load_manifest

ROUNDS = 9
REQUEST = TextToImage(
    pipeline="stable-diffusion-v1-5",
    prompt="",
    width=64,
    height=64,
    num_inference_steps=1,
    guidance_scale=1.0,
    seeds=(1,),
)


def attach_ms(pipeline: Pipeline, loras: tuple[Lora, ...]) -> float:
    """Processor milliseconds until exactly these are on the networks."""
    before = time.process_time()
    pipeline.attach(group_key(replace(REQUEST, loras=loras)))
    return 1000 * (time.process_time() - before)


def main() -> None:
    path = ensure(Path(tempfile.gettempdir()) / "understudy-benchmark")
    manifest, weights = load_manifest(path), path.parent
    library = AdapterLibrary(manifest, weights)
    entry = manifest.pipeline(REQUEST.pipeline)
    checkpoint = Checkpoint(REQUEST.pipeline, manifest, entry, weights, torch.device("cpu"))
    pipeline = open_pipeline(checkpoint, library)
    for name in ("more_details", "animie"):
        lora = (Lora(name=name),)
        first, cached, switched = [], [], []
        for _ in range(ROUNDS):
            library.clear_cache()
            pipeline.clear_cache()
            first.append(attach_ms(pipeline, lora))
            pipeline.clear_cache()
            cached.append(attach_ms(pipeline, lora))
            attach_ms(pipeline, ())
            switched.append(attach_ms(pipeline, lora))
        for what, times in (("from its file", first), ("cached", cached), ("still inserted", switched)):
            print(f"{name}, {what}: {statistics.median(times):.1f} ms")


if __name__ == "__main__":
    main()
