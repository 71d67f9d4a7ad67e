"""What a load costs those who draw meanwhile: turns of the loop without a load, and beside loads.

Run: ``python -m tests.benchmarks.loading [--between]``. SD1.5 of the demo draws 512 x 512; meanwhile other
checkpoints of the demo, and one of half a gigabyte, are read one after the other, again and again. Prints
the median, the 99th percentile and the longest of the turns in ms. ``--between`` reads them in the loop's
own thread, between two steps, for comparison.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from pipelines.demo.build import ensure
from pipelines.denoising.loop import Loop
from pipelines.engine.loader import Loader
from pipelines.engine.pool import PipelinePool
from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest, load_manifest

DRAWN = "stable-diffusion-v1-5"
OTHERS = ("large", "kandinsky-2-2", "kolors", "sd3-medium-pose", "sdxl")
TURNS = 40
"""The turns without a load that are measured before each load: other work of the machine comes and goes."""

ROUNDS = 2


def with_a_large_one(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with a checkpoint whose UNet has 0.13 billion parameters."""
    entry = manifest.pipelines[DRAWN]
    source = manifest.path.parent / str(entry.parts["pipeline"].folder)
    shutil.copytree(source, folder)
    small: Any = UNet2DConditionModel.load_config(folder / "unet")
    shutil.rmtree(folder / "unet")
    heads = {"attention_head_dim": 8, "norm_num_groups": 32}
    count = len(small["block_out_channels"])
    wide = {**small, **heads, "block_out_channels": [128, 256, 512, 512][-count:], "layers_per_block": 2}
    network: Any = UNet2DConditionModel.from_config(wide)
    network.save_pretrained(folder / "unet")
    part = entry.parts["pipeline"].model_copy(update={"folder": folder})
    large = entry.model_copy(update={"parts": {"pipeline": part}, "also": ()})
    return manifest.with_entry("pipelines", "large", large)


def turns(loop: Loop, count: int) -> list[float]:
    """The milliseconds of so many turns."""
    taken: list[float] = []
    while len(taken) < count:
        if loop.idle:
            loop.submit("drawn", request())
            loop.turn()
        started = time.perf_counter()
        loop.turn()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def request() -> TextToImage:
    return TextToImage(
        pipeline=DRAWN, prompt="a red circle", width=512, height=512, num_inference_steps=500,
        guidance_scale=5.0, seeds=(1,),
    )  # fmt: skip


def show(label: str, without: list[float], beside: list[float]) -> None:
    median = statistics.median(without)
    for words, taken in ((f"before {label}", without), (f"beside {label}", beside)):
        own, longest = statistics.median(taken), max(taken)
        p99 = sorted(taken)[max(0, int(len(taken) * 0.99) - 1)]
        print(
            f"{words:40} {len(taken):3} turns: median {own:6.1f}  p99 {p99:6.1f}  longest {longest:6.1f} ms"
            f" ({longest / own:.2f} x its median, {longest / median:.2f} x that without)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--between", action="store_true", help="read in the loop's own thread")
    between: bool = parser.parse_args().between
    with tempfile.TemporaryDirectory() as name:
        manifest = with_a_large_one(load_manifest(ensure(Path(name))), Path(name) / "large")
        pool = PipelinePool(manifest, Path(name), torch.device("cpu"), budget_bytes=16 * 10**9)
        loader = Loader(pool, lambda: not loop.idle)
        loop = Loop(pool, 2**20, loader=loader)
        for other in OTHERS:  # imports what they need, and fills the page cache
            pool.open(other)
            pool.forget(other)
        pool.open(DRAWN)
        loop.submit("drawn", request())
        loop.turn()
        turns(loop, TURNS)
        for other in OTHERS:
            without: list[float] = []
            beside: list[float] = []
            read_s = 0.0
            for _ in range(ROUNDS):
                without += turns(loop, TURNS)
                pool.forget(other)
                started = time.perf_counter()
                while other not in pool.resident:
                    before = time.perf_counter()
                    if between:
                        pool.open(other)
                    else:
                        loader.ready(other, loop.in_use)
                    turns(loop, 1)
                    beside.append((time.perf_counter() - before) * 1e3)
                read_s += time.perf_counter() - started
            show(f"{other}, read in {read_s / ROUNDS:.1f} s", without, beside)


if __name__ == "__main__":
    main()
