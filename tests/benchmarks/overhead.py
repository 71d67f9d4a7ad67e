"""What the server adds to a picture: one caller over HTTP against the same family called in a plain loop.

Run: ``python -m tests.benchmarks.overhead``. Both sides draw the same request with the small SD1.5 checkpoint
at 512x512, encode the same PNG and write it to a file, on one torch thread, in turns, so that noise disturbs
both alike. Drawing takes a hundred times longer than what is looked for, so a second figure leaves it out on
both sides: of each, only what is not one of the stages that a drawing times itself. The caller is the
standard library's, which adds the least of its own.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch

from pipelines import image_io
from pipelines.demo.build import ensure
from pipelines.engine import open_pool
from pipelines.loop import Loop
from pipelines.messages import Drawn, EngineConfig, Failed
from pipelines.request import Drawing, SchedulerChoice, TextToImage
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


def draw(loop: Loop) -> Drawing:
    """Draw in this process."""
    loop.submit("it", REQUEST)
    while True:
        for event in loop.turn():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Drawn):
                return event.drawing


def call(connection: http.client.HTTPConnection, key: str) -> None:
    """Let the server draw."""
    body = json.dumps({"key": key, **BODY})
    connection.request("POST", "/api/v1/enterprise/text2img", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    assert answer["status"] == "success", answer


def engine_seconds(server: RunningServer) -> float:
    """What the engine has spent on all requests so far."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("understudy_stage_seconds_sum"))


def measure(loop: Loop, server: RunningServer, folder: Path) -> list[dict[str, float]]:
    """Seconds of each round: drawing and keeping in the loop, the call, and the stages of both drawings."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + WARM_UP):
        began = time.perf_counter()
        drawing = draw(loop)
        (folder / f"{number}.png").write_bytes(image_io.encode(drawing.images[0], "png"))
        kept = time.perf_counter()
        before = engine_seconds(server)
        asked = time.perf_counter()
        call(connection, server.key)
        answered = time.perf_counter()
        stages = drawing.timings.encode_s + drawing.timings.denoise_s + drawing.timings.decode_s
        served_stages = engine_seconds(server) - before
        rounds.append(
            {
                "in the loop: draw, encode, write": kept - began,
                "served": answered - asked,
                "added": (answered - asked) - (kept - began),
                "added, drawing left out": (answered - asked - served_stages) - (kept - began - stages),
            }
        )
    connection.close()
    return rounds[WARM_UP:]


def report(rounds: list[dict[str, float]]) -> None:
    for name in rounds[0]:
        low, middle, high = statistics.quantiles([it[name] for it in rounds], n=4)
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
