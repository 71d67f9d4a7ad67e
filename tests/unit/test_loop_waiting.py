"""Whom the loop admits, against the plainest way to decide it, and what it costs while many wait."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.loop import Loop
from pipelines.errors import GenerationError, UnknownPipeline
from pipelines.messages import Drawn, Event, Failed
from pipelines.request import Request, TextToImage, pipelines_of
from tests.instructions import instructions
from tests.unit.test_loop import PICTURE, SIDE, Shelf, drawn, failures, request, run


class PlainLoop(Loop):
    """Asks each waiting request, oldest first, whether it fits beside everything that is drawn."""

    def _admit(self) -> None:
        passed: list[ActiveRequest] = []
        waiting = deque(self._waiting._all.values())
        for active in waiting:
            self._waiting.remove(active.ticket_id)
        while waiting:
            active = waiting.popleft()
            draining = bool(passed) and time.monotonic() - passed[0].since > self._admission.patience_s
            try:
                if draining or not self._fits(active):
                    passed.append(active)
                else:
                    self._encode(active)
            except Exception as error:
                self._fail(active, error)
        for active in passed:
            self._waiting.add(active)

    def _fits(self, active: ActiveRequest) -> bool:
        asked = active.request
        beside = [
            other.request.width * other.request.height
            for group in self._groups
            for other, _ in group.members
            if other.request.pipeline == asked.pipeline
        ]
        needed = pipelines_of(asked)
        in_use = {name for other in self._running.values() for name in pipelines_of(other.request)}
        fit = [self._pool.can_open(each, {*in_use, *needed}) for each in needed]
        if self._running and not all(fit):
            return False
        return not beside or sum(beside) + asked.pixels <= self._admission.group_pixels


class Rooms(Shelf):
    """A shelf that says of names it does not know that there is no such pipeline."""

    def can_open(self, name: str, in_use: Collection[str]) -> bool:
        if name not in self.known:
            raise UnknownPipeline(name)
        return super().can_open(name, in_use)


def admitted_by(kind: type[Loop], patience_s: float, seed: int) -> list[list[str]]:
    """What is drawn, or fails, in each turn while requests of all kinds come and go."""
    rng = random.Random(seed)
    shelf = Rooms(room=2, known=("a", "b", "c", "d"))
    loop = kind(shelf, 6 * PICTURE, patience_s=patience_s)
    names: list[str] = []
    turns: list[list[str]] = []
    while len(turns) < 100 or not loop.idle:
        for _ in range(rng.choice((0, 0, 1, 2, 5)) if len(turns) < 100 else 0):
            names.append(str(len(names)))
            loop.submit(names[-1], random_request(rng))
        if names and rng.random() < 0.2:
            loop.cancel(rng.choice(names))
        ended = [each for each in loop.turn() if isinstance(each, Drawn | Failed)]
        turns.append(sorted(loop._running) + [f"{type(each).__name__} {each.ticket_id}" for each in ended])
    return turns


def random_request(rng: random.Random) -> TextToImage:
    asked = request(
        rng.choice((1.0, 2.0, "refused")) if rng.random() < 0.1 else 1.0,
        steps=rng.randint(1, 6),
        pipeline=rng.choice("aaabbcdx"),
        images=rng.choice((1, 1, 2, 3, 7)),
    )
    side = rng.choice((SIDE, SIDE, 2 * SIDE))
    upscaler = rng.choice((None, None, None, "d", "nowhere"))
    return replace(asked, width=side, upscaler=upscaler)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("patience_s", [3600, -1], ids=["patient", "impatient"])
def test_the_same_requests_are_admitted_as_by_asking_each_one(patience_s: float, seed: int):
    assert admitted_by(Loop, patience_s, seed) == admitted_by(PlainLoop, patience_s, seed)


def full_loop(waiting: int, kinds: Callable[[int], TextToImage]) -> Loop:
    """A loop whose groups are full, behind which requests of these kinds wait."""
    loop = Loop(Shelf(room=2), 4 * PICTURE)
    for pipeline in "ab":
        loop.submit(f"running {pipeline}", request(steps=1000, images=4, pipeline=pipeline))
    loop.turn()
    for number in range(waiting):
        loop.submit(str(number), kinds(number))
    return loop


def of_two_pipelines(number: int) -> TextToImage:
    return request(number, pipeline="ab"[number % 2], images=1 + number % 3)


@pytest.mark.parametrize(
    "kinds",
    [
        of_two_pipelines,
        lambda number: replace(request(number), width=SIDE * (1 + number)),  # each of its own size
        lambda number: request(number, pipeline="ac"[number % 2]),  # c has no room in memory
    ],
    ids=["two pipelines", "sizes", "no memory"],
)
def test_a_turn_costs_the_same_whether_a_hundred_wait_or_ten_thousand(
    kinds: Callable[[int], TextToImage],
):
    few, many = full_loop(100, kinds), full_loop(10_000, kinds)
    for loop in (few, many):
        loop.turn()
    assert instructions(many.turn) <= instructions(few.turn) + 20


def test_asking_each_one_costs_more_the_more_wait():
    loop = full_loop(300, of_two_pipelines)
    plain = full_loop(300, of_two_pipelines)
    plain.__class__ = PlainLoop
    assert instructions(plain.turn) > 20 * instructions(loop.turn)


def test_to_cancel_one_of_ten_thousand_costs_as_much_as_to_cancel_one_of_a_hundred():
    few, many = full_loop(100, of_two_pipelines), full_loop(10_000, of_two_pipelines)
    assert instructions(lambda: many.cancel("50")) <= instructions(lambda: few.cancel("50")) + 20


def test_a_request_to_two_pipelines_waits_for_memory_for_both():
    loop = Loop(Shelf(room=2), 10 * PICTURE)
    loop.submit("a", request(steps=5))
    loop.turn()
    loop.submit("both", replace(request(steps=5, pipeline="b"), upscaler="c"))
    loop.turn()
    assert list(loop._running) == ["a"]
    events: list[Event] = []
    while "a" in loop._running:
        events += loop.turn()
    loop.turn()
    assert list(loop._running) == ["both"]


def test_an_unknown_second_pipeline_is_told_at_once_even_beside_a_full_group():
    loop = Loop(Rooms(), PICTURE)
    loop.submit("running", request(steps=5))
    loop.turn()
    bad: Request = replace(request(), upscaler="nowhere")
    loop.submit("bad", bad)
    told = failures(loop.turn())
    assert isinstance(told["bad"], UnknownPipeline)
    assert isinstance(told["bad"], GenerationError)
    assert list(drawn(run(loop))) == ["running"]
