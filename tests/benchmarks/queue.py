"""What one dispatch of the server's queue takes while many wait, beside the queue that looks at all of them.

python -m tests.benchmarks.queue
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque
from typing import Any

from server.engines.held import Held
from server.engines.queue import JobQueue, Offer
from server.engines.ticket import Ticket
from tests.unit.plain_queue import PlainQueue
from tests.unit.test_queue import GROUP_PIXELS, ticket

TRAFFIC = {
    "one size": lambda rng: {},
    "three pipelines, three sizes": lambda rng: {
        "pipeline": rng.choice(("sd15", "sdxl", "kolors")),
        "side": rng.choice((512, 768, 1024)),
    },
    "a size for each": lambda rng: {"side": rng.randrange(64, 2048)},
}


def filled(queue: Any, waiting: int, accounts: int, kind: Any) -> Any:
    rng = random.Random(1)
    for number in range(waiting):
        queue.put(ticket(number % accounts, **kind(rng)))
    return queue


def dispatches(queue: Any, many: int) -> float:
    """The median of the microseconds of one dispatch to an engine that is nearly full."""
    held, drawn = Held(), deque[Ticket]()
    offer = Offer(engine="gpu", group_pixels=GROUP_PIXELS, resident=frozenset({"sd15"}), held=held)
    seconds: list[float] = []
    while len(seconds) < many:
        started = time.perf_counter()
        taken = queue.take([offer])
        seconds.append(time.perf_counter() - started)
        if taken is None:
            one = drawn.popleft()
            held.remove(one.key, one.request.pixels)
        else:
            drawn.append(taken[0])
            held.add(taken[0].key, taken[0].request.pixels)
    return statistics.median(seconds) * 1e6


async def main() -> None:
    for name, kind in TRAFFIC.items():
        print(name)
        figures: list[float] = []
        for waiting in (100, 1_000, 10_000):
            queue = JobQueue(limit=10**6, limit_per_account=10**6)
            figures.append(dispatches(filled(queue, waiting, waiting // 10, kind), min(waiting // 2, 1000)))
            print(f"  {waiting:6} waiting of {waiting // 10:5} accounts: {figures[-1]:8.1f} us a dispatch")
        plain = dispatches(filled(PlainQueue(10, time.monotonic), 10_000, 1_000, kind), 15)
        print(f"  looking at all 10,000: {plain:8.1f} us, {plain / figures[-1]:.0f} times as much")
        print(f"  10,000 waiting against 100: {figures[-1] / figures[0]:.2f} times as much")


if __name__ == "__main__":
    asyncio.run(main())
