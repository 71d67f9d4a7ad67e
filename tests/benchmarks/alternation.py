"""Draw all pages in turn, 50 times, on a card of some size, and print what moves. Nothing is computed.

python -m tests.benchmarks.alternation [GB of the card] [GB of the host's memory]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pipelines.engine.pool import PipelinePool
from pipelines.errors import NeverFits
from pipelines.weights.memory import budget_bytes as weights_budget
from tests.gpu.stages import SIDES, default_request
from tests.memory_budget import CountedMoves, Walk, dummies

GIGABYTE = 10**9
ROUNDS = 50


def main(card_gb: float, host_gb: float) -> None:
    manifest, card, mover = dummies(), int(card_gb * GIGABYTE), CountedMoves()
    pool = PipelinePool(
        manifest,
        Path(),
        torch.device("meta"),
        budget_bytes=weights_budget(manifest, card),
        host_budget_bytes=int(host_gb * GIGABYTE),
        device_bytes=card,
        mover=mover,
    )
    walk = Walk(pool)
    asked = [default_request(name, (1,), side=side, steps=25, prompt="a cat") for name, side in SIDES.items()]
    print(f"{card_gb:g} GB card, {pool.budget_bytes / GIGABYTE:.1f} GB for weights; {host_gb:g} GB of host")
    print("| round | GB on the device | most | GB on the host | networks moved in | of these text encoders |")
    print("|---|---|---|---|---|---|")
    before = encoders_before = 0
    refused: dict[str, str] = {}
    for number in range(1, ROUNDS + 1):
        for request in asked:
            try:
                walk.draw(request)
            except NeverFits as error:
                refused[request.pipeline] = str(error)
        moved = mover.came.total()
        encoders = sum(times for module, times in mover.came.items() if _reads_text(module))
        if number in (1, 2, 3, 10, ROUNDS):
            figures = (pool.used_bytes, walk.most_bytes, pool.host_bytes)
            cells = [str(number), *(f"{figure / GIGABYTE:.1f}" for figure in figures)]
            print(f"| {' | '.join([*cells, str(moved - before), str(encoders - encoders_before)])} |")
        before, encoders_before = moved, encoders
    for words in refused.values():
        print(f"refused: {words}")


def _reads_text(module: torch.nn.Module) -> bool:
    return any(words in type(module).__name__ for words in ("CLIPText", "T5", "GLM"))


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]]
    main(*(given + [24.0, 16.0][len(given) :]))
