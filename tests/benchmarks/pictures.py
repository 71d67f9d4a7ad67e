"""How long a picture of each page's default size takes, drawn alone, with the small checkpoints.

Run: ``python -m tests.benchmarks.pictures``. Prints seconds, the median of three after a first one.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.demo.build import ensure
from pipelines.demo.training.evaluate import ARTISTS, ask_for_figure, new_figures, trained_scenes
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.request import Request

PICTURES = 3

(SCENE,) = trained_scenes(1)
(FIGURE,) = new_figures(1)
ASKS: dict[str, Callable[[int], Request]] = {
    **{name: partial(ask, caption(SCENE)) for name, ask in ARTISTS.items()},
    "SD3": partial(ask_for_figure, caption(FIGURE), FIGURE.person),
}
"""Family -> request of a seed."""


def seconds(local_loop: LocalLoop, request: Request) -> float:
    began = time.perf_counter()
    local_loop.draw([request])
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        local_loop = LocalLoop(ensure(Path(folder)))
        for name, ask in ASKS.items():
            _, *taken = (seconds(local_loop, ask(seed)) for seed in range(1 + PICTURES))
            request = ask(0)
            print(f"{name}, {request.width} x {request.height}: {statistics.median(taken):.2f} s")


if __name__ == "__main__":
    main()
