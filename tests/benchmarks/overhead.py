"""What the server adds to a picture: one caller over HTTP against the same family called in a plain loop.

Run: ``python -m tests.benchmarks.overhead``. Both sides draw the same request with the small SD1.5 checkpoint
at 512x512 and write a PNG, on one torch thread, in turns, so that noise disturbs both alike. The loop writes
its picture twice: as whoever calls diffusers does, by Pillow's ``save``, and by the server's own encoder,
which is faster and pays for a part of what the server adds. Drawing takes a hundred times longer than what is
looked for, so each figure is given once more with it left out on both sides: of each, only what is not one of
the stages that a drawing times itself. The caller is the standard library's, which adds the least of its own.

Every process keeps the memory that it frees: glibc gives blocks as large as a decoder's back at once, and
getting them again costs a process a fifth of its drawing or nothing, as its heap happens to lie.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch

from pipelines import image_io
from pipelines.demo.build import ensure
from pipelines.denoising.loop import Loop
from pipelines.drawing import Drawing
from pipelines.engine.process import open_pool
from pipelines.messages import Drawn, EngineConfig, Failed
from pipelines.request import SchedulerChoice, TextToImage
from tests.running_server import RunningServer, start_server

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "2000000000"}
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
    """Seconds of each round."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + WARM_UP):
        before = engine_seconds(server)
        began = time.perf_counter()
        call(connection, server.key)
        served = time.perf_counter() - began
        served_stages = engine_seconds(server) - before

        began = time.perf_counter()
        drawing = draw(loop)
        drawn = time.perf_counter()
        image_io.to_pil(drawing.images[0]).save(folder / f"{number}.png")
        saved = time.perf_counter()
        (folder / f"{number}-fast.png").write_bytes(image_io.encode(drawing.images[0], "png"))
        encoded = time.perf_counter()
        stages = drawing.timings.encode_s + drawing.timings.denoise_s + drawing.timings.decode_s
        plain = saved - began
        fast = (drawn - began) + (encoded - saved)
        rounds.append(
            {
                "served": served,
                "in a loop, image.save": plain,
                "  added": served - plain,
                "  added, drawing left out": (served - served_stages) - (plain - stages),
                "in a loop, the server's encoder": fast,
                "  added by it": served - fast,
                "  added by it, drawing left out": (served - served_stages) - (fast - stages),
            }
        )
    connection.close()
    return rounds[WARM_UP:]


def report(rounds: list[dict[str, float]]) -> None:
    for name in rounds[0]:
        low, middle, high = statistics.quantiles([it[name] for it in rounds], n=4)
        print(f"{name:33} median {middle * 1000:7.1f} ms, quartiles {low * 1000:.1f} and {high * 1000:.1f}")


def main() -> None:
    if not os.environ.keys() >= KEEP_MEMORY.keys():
        # Read when a process starts; the server and its engine inherit them.
        command = [sys.executable, "-m", "tests.benchmarks.overhead"]
        os.execve(sys.executable, command, os.environ | KEEP_MEMORY)
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
