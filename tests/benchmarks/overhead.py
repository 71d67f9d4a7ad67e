"""What the server adds to a picture: one caller over HTTP against the same family called in a plain loop.

Run: ``python -m tests.benchmarks.overhead``. Both sides draw the same request with the small SD1.5 checkpoint
at 512x512, encode the same PNG and write it to a file, on one torch thread, in turns, so that noise disturbs
both alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from pipelines import image_io
from pipelines.demo.build import ensure
from pipelines.engine import open_pool
from pipelines.loop import Loop
from pipelines.messages import Drawn, EngineConfig, Failed
from pipelines.request import SchedulerChoice, TextToImage
from tests.integration.conftest import RunningServer, start_server

ROUNDS = 40
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


def direct(loop: Loop, file: Path) -> None:
    """Draw in this process, encode, and write the file."""
    loop.submit("it", REQUEST)
    while True:
        for event in loop.turn():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Drawn):
                file.write_bytes(image_io.encode(event.drawing.images[0], "png"))
                return


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
            measure(loop, server, folder)
        finally:
            server.stop()


def measure(loop: Loop, server: RunningServer, folder: Path) -> None:
    direct_s: list[float] = []
    served_s: list[float] = []
    with server.client() as client:
        for number in range(ROUNDS + 3):
            started = time.perf_counter()
            direct(loop, folder / f"{number}.png")
            direct_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            answer = client.post("/api/v1/enterprise/text2img", json={"key": server.key, **BODY}).json()
            served_s.append(time.perf_counter() - started)
            assert answer["status"] == "success", answer
    direct_s, served_s = direct_s[3:], served_s[3:]
    added = [served - drawn for served, drawn in zip(served_s, direct_s, strict=True)]
    print(f"direct   median {statistics.median(direct_s) * 1000:7.1f} ms")
    print(f"served   median {statistics.median(served_s) * 1000:7.1f} ms")
    print(f"added    median {statistics.median(added) * 1000:7.1f} ms over {len(added)} rounds")


if __name__ == "__main__":
    main()
