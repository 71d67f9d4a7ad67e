"""A pipeline is read beside the loop: those who draw go on, those who wait for it wait without work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoints.pace import Pace
from pipelines.denoising.loop import Loop
from pipelines.engine.loader import Loader
from pipelines.engine.parts import Opened
from pipelines.engine.pool import PipelinePool
from pipelines.errors import CheckpointUnavailable
from pipelines.messages import Drawn, Event, Failed, Progress
from pipelines.request import TextToImage
from pipelines.weights.manifest import Manifest, load_manifest

DRAWN, OTHER = "stable-diffusion-v1-5", "sdxl"


class GatedPool(PipelinePool):
    """Reads nothing beside the loop before its gate is opened."""

    def __init__(self, manifest: Manifest, budget_bytes: int = 10**10) -> None:
        super().__init__(manifest, manifest.path.parent, torch.device("cpu"), budget_bytes=budget_bytes)
        self.gate = threading.Event()
        self.reads: list[str] = []
        self.failures: list[Exception] = []

    def read(self, name: str, pace: Pace | None = None) -> Opened:
        self.reads.append(name)
        if pace is not None:
            assert self.gate.wait(60)
        if self.failures:
            raise self.failures.pop()
        return super().read(name, pace)


class Engine:
    """A pool, a loader and a loop, and what happened."""

    def __init__(self, manifest: Manifest) -> None:
        self.pool = GatedPool(manifest)
        self.loader = Loader(self.pool)
        self.loop = Loop(self.pool, 2**20, loader=self.loader)
        self.events: list[Event] = []

    def submit(self, ticket_id: str, pipeline: str, steps: int = 2) -> None:
        self.loop.submit(
            ticket_id,
            TextToImage(
                pipeline=pipeline, prompt="a boat", width=64, height=64, num_inference_steps=steps,
                guidance_scale=1.0, seeds=(1,),
            ),
        )  # fmt: skip

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.events += self.loop.turn()

    def until(self, holds: Callable[[], bool]) -> None:
        """Turn until it holds; with nothing to draw, sleep until something was read."""
        while not holds():
            if self.loop.idle:
                assert wait([self.loader.fileno()], 60)
            self.turn()

    def ended(self, ticket_id: str) -> bool:
        return any(isinstance(each, Drawn | Failed) and each.ticket_id == ticket_id for each in self.events)

    def error(self, ticket_id: str) -> Exception | None:
        """The error of a request that failed."""
        return next(
            (e.error for e in self.events if isinstance(e, Failed) and e.ticket_id == ticket_id), None
        )


@pytest.fixture
def engine(random_manifest: Manifest) -> Any:
    engine = Engine(random_manifest)
    yield engine
    engine.pool.gate.set()


def test_turns_go_on_while_a_load_is_held_open(engine: Engine) -> None:
    engine.pool.open(DRAWN)
    engine.submit("drawn", DRAWN, steps=30)
    engine.submit("waits", OTHER)
    engine.turn(20)
    assert engine.pool.reads == [DRAWN, OTHER]
    assert max(each.done for each in engine.events if isinstance(each, Progress)) >= 19
    assert not engine.ended("waits")
    engine.pool.gate.set()
    engine.until(lambda: engine.ended("waits") and engine.ended("drawn"))
    assert engine.error("waits") is None


def test_who_waits_for_a_load_leaves_the_loop_idle_and_is_waked(engine: Engine) -> None:
    engine.submit("waits", DRAWN)
    engine.turn()
    assert engine.loop.idle
    assert not wait([engine.loader.fileno()], 0)
    engine.pool.gate.set()
    assert wait([engine.loader.fileno()], 60)
    engine.until(lambda: engine.ended("waits"))
    assert engine.error("waits") is None


def test_two_requests_for_one_pipeline_load_it_once_and_are_drawn_in_order(engine: Engine) -> None:
    engine.submit("first", DRAWN)
    engine.submit("second", DRAWN)
    engine.turn(2)
    engine.submit("third", DRAWN)
    engine.turn()
    engine.pool.gate.set()
    engine.until(lambda: all(engine.ended(name) for name in ("first", "second", "third")))
    assert engine.pool.reads == [DRAWN]
    assert [each.ticket_id for each in engine.events if isinstance(each, Drawn)] == [
        "first",
        "second",
        "third",
    ]


def test_a_cancelled_request_does_not_cancel_the_load(engine: Engine) -> None:
    engine.submit("gone", DRAWN)
    engine.turn()
    engine.loop.cancel("gone")
    engine.pool.gate.set()
    engine.until(lambda: DRAWN in engine.pool.resident)
    assert not engine.ended("gone")
    engine.submit("next", DRAWN)
    engine.until(lambda: engine.ended("next"))
    assert engine.pool.reads == [DRAWN]


def test_a_load_that_fails_fails_only_its_requests(engine: Engine) -> None:
    engine.pool.open(DRAWN)
    engine.pool.failures.append(CheckpointUnavailable("sdxl is broken"))
    engine.submit("drawn", DRAWN, steps=4)
    engine.submit("waits", OTHER)
    engine.submit("too", OTHER)
    engine.pool.gate.set()
    engine.until(lambda: all(engine.ended(name) for name in ("drawn", "waits", "too")))
    assert engine.error("drawn") is None
    for name in ("waits", "too"):
        assert isinstance(engine.error(name), CheckpointUnavailable)
    assert [each.name for each in engine.pool.absences] == [OTHER]


def test_memory_that_runs_out_while_loading_is_made_and_the_load_tried_once_more(engine: Engine) -> None:
    engine.pool.open(OTHER)
    engine.pool.failures.append(MemoryError())
    engine.submit("waits", DRAWN)
    engine.pool.gate.set()
    engine.until(lambda: engine.ended("waits"))
    assert engine.error("waits") is None
    assert engine.pool.reads == [OTHER, DRAWN, DRAWN]
    assert engine.pool.resident == (DRAWN,)


def test_what_is_no_network_of_its_library_is_opened_by_the_loops_thread(
    engine: Engine, random_manifest_path: Path, tmp_path: Path
) -> None:
    threads: list[str] = []
    engine.pool.gate.set()

    def read(name: str, pace: Pace | None = None) -> Opened:
        assert pace is not None
        pace.alone(lambda: threads.append(threading.current_thread().name))
        return PipelinePool.read(engine.pool, name, pace)

    engine.pool.read = read  # pyright: ignore[reportAttributeAccessIssue]
    engine.submit("waits", DRAWN)
    engine.until(lambda: engine.ended("waits"))
    assert threads == [threading.current_thread().name]


def test_a_pipeline_that_the_manifest_lost_meanwhile_is_not_taken(
    engine: Engine, random_manifest_path: Path
) -> None:
    engine.submit("gone", DRAWN)
    engine.turn()
    engine.loop.cancel("gone")
    manifest = load_manifest(random_manifest_path)
    left = {name: entry for name, entry in manifest.pipelines.items() if name != DRAWN}
    engine.pool.reload(manifest.model_copy(update={"pipelines": left}))
    engine.pool.gate.set()
    assert wait([engine.loader.fileno()], 60)
    engine.turn()
    assert engine.pool.resident == ()
