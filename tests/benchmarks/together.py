"""What drawing together is worth: eight callers with different steps, guidance and schedulers.

Run: ``python -m tests.benchmarks.together``. The same eight requests go to one server three ways: one after
the other; in groups that equal settings could form (pairs); all at once. Prints images per second and ratios.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from pipelines.demo.build import ensure
from tests.running_server import RunningServer, start_server

ROUNDS = 3
SETTINGS = [
    (10, 3.0, "DDIMScheduler"),
    (12, 5.0, "EulerDiscreteScheduler"),
    (14, 7.5, "UniPCMultistepScheduler"),
    (16, 9.0, "DPMSolverMultistepScheduler"),
]
CALLERS = [(*SETTINGS[index // 2], index) for index in range(8)]
"""Steps, guidance, scheduler, seed: every setting twice, so that equal settings can pair up."""


def draw(server: RunningServer, caller: tuple[int, float, str, int]) -> None:
    steps, guidance, scheduler, seed = caller
    body = {
        "key": server.key,
        "model_id": "stable-diffusion-v1-5",
        "prompt": f"a lighthouse in storm {seed}",
        "width": 256,
        "height": 256,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "seed": seed,
    }
    answer = httpx.post(f"{server.url}/api/v1/enterprise/text2img", json=body, timeout=300).json()
    assert answer["status"] == "success", answer


def images_per_second(server: RunningServer, at_once: int) -> float:
    """All callers, so many of them at the same time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        for first in range(0, len(CALLERS), at_once):
            list(pool.map(lambda caller: draw(server, caller), CALLERS[first : first + at_once]))
    return len(CALLERS) / (time.perf_counter() - started)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        server = start_server(Path(name), ensure(Path(name)))
        try:
            images_per_second(server, len(CALLERS))
            ways = {"one after the other": 1, "equal settings together": 2, "all together": 8}
            rates = {
                way: statistics.median(images_per_second(server, at_once) for _ in range(ROUNDS))
                for way, at_once in ways.items()
            }
        finally:
            server.stop()
    for way, rate in rates.items():
        print(f"{way:25} {rate:6.2f} images/s, x{rate / rates['one after the other']:.2f}")


if __name__ == "__main__":
    main()
