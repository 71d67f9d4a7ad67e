"""What the server adds to a picture: one caller over HTTP against the same family called in a plain loop.

Run: ``python -m tests.benchmarks.overhead``. Both sides draw the same request with the small SD1.5 checkpoint
at 512x512, encode the same PNG and write it to a file, on one torch thread, in turns, so that noise disturbs
both alike. Drawing takes a hundred times longer than what is looked for, so a second figure leaves it out:
the call, less the seconds that the engine says it drew, less what encoding and writing take in the loop.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import httpx
import torch

from pipelines import image_io
from pipelines.demo.build import ensure
from pipelines.engine import open_pool
from pipelines.image_io import RGBImage
from pipelines.loop import Loop
from pipelines.messages import Drawn, EngineConfig, Failed
from pipelines.request import SchedulerChoice, TextToImage
from tests.running_server import RunningServer, start_server

ROUNDS, WARM_UP = 40, 3
STEPS = 2
BODY = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a lighthouse",
    "num_inference_steps": STEPS,
    "enhance_prompt": "no",
    "tomesd": "no",
    "use_karras_sigmas": "no",
    "safety_checker": "no",
    "scheduler": "DDIMScheduler",
    "seed": 1,
}
REQUEST = TextToImage(
    pipeline="stable-diffusion-v1-5",
    prompt="a lighthouse",
    negative_prompt="",
    width=512,
    height=512,
    num_inference_steps=STEPS,
    guidance_scale=7.5,
    seeds=(1,),
    scheduler=SchedulerChoice(name="DDIMScheduler", use_karras_sigmas=False),
)


def draw(loop: Loop) -> RGBImage:
    """Draw in this process."""
    loop.submit("it", REQUEST)
    while True:
        for event in loop.turn():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Drawn):
                return event.drawing.images[0]


def engine_seconds(server: RunningServer) -> float:
    """What the engine has spent on all requests so far."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("understudy_stage_seconds_sum"))


def measure(loop: Loop, server: RunningServer, folder: Path) -> dict[str, list[float]]:
    """Seconds per round: drawing and keeping in the loop, the whole call, and the engine's part of it."""
    seconds: dict[str, list[float]] = {"drawn": [], "kept": [], "served": [], "engine": []}
    with server.client() as client:
        for number in range(ROUNDS + WARM_UP):
            started = time.perf_counter()
            image = draw(loop)
            drawn = time.perf_counter()
            (folder / f"{number}.png").write_bytes(image_io.encode(image, "png"))
            seconds["kept"].append(time.perf_counter() - drawn)
            seconds["drawn"].append(drawn - started)
            before = engine_seconds(server)
            started = time.perf_counter()
            answer = client.post("/api/v1/enterprise/text2img", json={"key": server.key, **BODY}).json()
            seconds["served"].append(time.perf_counter() - started)
            assert answer["status"] == "success", answer
            seconds["engine"].append(engine_seconds(server) - before)
    return {name: values[WARM_UP:] for name, values in seconds.items()}


def report(seconds: dict[str, list[float]]) -> None:
    rounds = [dict(zip(seconds, values, strict=True)) for values in zip(*seconds.values(), strict=True)]
    figures = {
        "in the loop: draw, encode, write": [it["drawn"] + it["kept"] for it in rounds],
        "served": [it["served"] for it in rounds],
        "added": [it["served"] - it["drawn"] - it["kept"] for it in rounds],
        "added, drawing left out": [it["served"] - it["engine"] - it["kept"] for it in rounds],
    }
    for name, values in figures.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:33} median {middle * 1000:7.1f} ms, quartiles {low * 1000:.1f} and {high * 1000:.1f}")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = ensure(folder)
        config = EngineConfig(
            device="cpu",
            manifest=manifest,
            weights=folder,
            budget_bytes=8_000_000_000,
            group_pixels=4 * 1024 * 1024,
        )
        loop = Loop(open_pool(config), config.group_pixels)
        server = start_server(folder, manifest, png_metadata="false")
        try:
            report(measure(loop, server, folder))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
