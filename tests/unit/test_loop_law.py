"""Nobody who is done keeps another one waiting: full groups, and what happens between two pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch

from pipelines.denoising.device_clock import clock_of
from pipelines.denoising.loop import Loop
from pipelines.denoising.sample import Handover, Picture, Sample
from pipelines.errors import DrawingFailed, OutOfMemory
from pipelines.messages import Drawn, Event, Failed, Progress
from pipelines.request import Request, Rewriting
from tests.unit.test_loop import PICTURE, Network, Shelf, ToyPipeline, alone, drawn, failures, request, run

HELD = 64


@dataclass
class Finisher:
    """What finishing a sample does in the pipelines of `FinishingShelf`.

    Attributes:
        finished: the prompts of what was finished, in order.
        failing: what finishing a prompt raises, once each time it is listed.
    """

    finished: list[str] = field(default_factory=list)
    failing: dict[str, list[Exception]] = field(default_factory=dict)

    def around(self, finish: Callable[[Sample], Sample | Handover | Picture]):
        def finish_and_note(sample: Sample) -> Sample | Handover | Picture:
            assert not isinstance(sample.request, Rewriting)
            prompt = str(getattr(sample.request, "prompt", ""))
            if errors := self.failing.get(prompt):
                raise errors.pop(0)
            self.finished.append(prompt)
            return finish(sample)

        return finish_and_note


@dataclass
class FinishingShelf(Shelf):
    finisher: Finisher = field(default_factory=Finisher)
    relieved: int = 0

    def open(self, name: str, in_use: object) -> ToyPipeline:
        pipeline = super().open(name, in_use)
        encode = pipeline.encode

        def encode_and_watch(asked: Request):
            encoded = encode(asked)
            for sample in encoded if isinstance(encoded, list) else ():
                sample.finish = self.finisher.around(sample.finish)
            return encoded

        pipeline.encode = encode_and_watch
        return pipeline

    def relieve(self, in_use: object) -> bool:
        self.relieved += 1
        return False


def keep_full(loop: Loop, asked: Callable[[int], Request], turns: int) -> int:
    """Turn with a new request for each one that is drawn; the number that was drawn."""
    number = HELD
    for _ in range(turns):
        for event in loop.turn():
            assert not isinstance(event, Failed)
            if isinstance(event, Drawn):
                loop.submit(str(number), asked(number))
                number += 1
    return number - HELD


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 25])
def test_in_a_full_queue_nearly_all_that_is_held_is_denoised(steps: int):
    shelf = Shelf()
    loop = Loop(shelf, HELD * PICTURE)
    for index in range(HELD):  # as if they had come one after the other
        loop.submit(str(index), request(index, steps=max(1, steps * (index + 1) // HELD)))
    keep_full(loop, lambda number: request(number, steps=steps), 2 * steps)
    shelf.network.batches.clear()
    turns = 4 * steps
    pictures = keep_full(loop, lambda number: request(number, steps=steps), turns)
    samples = [rows // 2 for rows in shelf.network.batches]
    assert len(samples) == turns
    assert min(samples) >= 60
    assert pictures >= 60 * turns // steps


def test_a_mix_of_lengths_keeps_the_group_full():
    shelf = Shelf()
    loop = Loop(shelf, HELD * PICTURE)
    lengths = (1, 4, 30, 8, 2, 50)
    for index in range(HELD):
        loop.submit(str(index), request(index, steps=lengths[index % 6]))
    keep_full(loop, lambda number: request(number, steps=lengths[number % 6]), 200)
    assert min(rows // 2 for rows in shelf.network.batches) >= 60


def test_what_is_done_in_a_turn_is_told_in_that_turn():
    loop = Loop(Shelf(), 10 * PICTURE)
    for index in range(5):
        loop.submit(str(index), request(index, steps=1, seed=index, images=1 + index % 2))
    events = loop.turn()
    assert loop.idle
    assert sorted(drawn(events)) == ["0", "1", "2", "3", "4"]
    for index in range(5):
        wanted = alone(request(index, steps=1, seed=index, images=1 + index % 2))
        assert drawn(events)[str(index)] == pytest.approx(wanted, abs=1e-5)


def test_a_place_is_free_as_soon_as_its_sample_is_done():
    shelf = Shelf()
    loop = Loop(shelf, 2 * PICTURE)
    for index in range(6):
        loop.submit(str(index), request(index, steps=2))
    run(loop)
    assert shelf.network.batches == [4] * 6  # two samples, two rows each, without a gap


def parts(loop: Loop) -> list[list[Event]]:
    return list(loop.turn_in_parts())


def test_every_picture_is_told_before_the_next_one_is_made():
    shelf = FinishingShelf()
    loop = Loop(shelf, 10 * PICTURE)
    for index in range(3):
        loop.submit(str(index), request(index, steps=1))
    told = [[event.ticket_id for event in part if isinstance(event, Drawn)] for part in parts(loop)]
    assert told == [[], ["0"], ["1"], ["2"]]


def test_who_cancels_between_two_pictures_costs_none():
    shelf = FinishingShelf()
    loop = Loop(shelf, 10 * PICTURE)
    for index in range(4):
        loop.submit(str(index), request(index, steps=1, images=2))
    events: list[Event] = []
    for number, part in enumerate(loop.turn_in_parts()):
        events += part
        if number == 1:  # the first picture of "0" is made
            loop.cancel("0")
            loop.cancel("2")
    assert shelf.finisher.finished == ["0", "1", "1", "3", "3"]
    assert sorted(drawn(events)) == ["1", "3"]
    assert loop.idle


def test_who_comes_between_two_pictures_joins_the_next_step():
    shelf = FinishingShelf()
    loop = Loop(shelf, 3 * PICTURE)
    for index in range(3):
        loop.submit(str(index), request(index, steps=1 + index))
    for part in loop.turn_in_parts():
        for event in part:
            if isinstance(event, Drawn):
                loop.submit("late", request(9, steps=1))
    loop.turn()
    assert shelf.network.batches == [6, 6]


def test_a_turn_that_is_left_between_two_pictures_loses_none():
    loop = Loop(FinishingShelf(), 10 * PICTURE)
    for index in range(4):
        loop.submit(str(index), request(index, steps=1))
    turn = loop.turn_in_parts()
    events = [event for _ in range(2) for event in next(turn)]
    turn.close()
    assert sorted(drawn(events + run(loop))) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("broken"), DrawingFailed), (torch.OutOfMemoryError(), OutOfMemory)]
)
def test_a_picture_that_cannot_be_made_takes_only_its_own_request_along(
    error: Exception, told: type[Exception]
):
    shelf = FinishingShelf()
    shelf.finisher.failing["1.0"] = [error] * 3
    loop = Loop(shelf, 10 * PICTURE)
    for index in range(3):
        loop.submit(str(index), request(float(index), steps=1, images=2))
    events = run(loop)
    assert {name: type(error) for name, error in failures(events).items()} == {"1": told}
    assert sorted(drawn(events)) == ["0", "2"]
    assert "1.0" not in shelf.finisher.finished


def test_a_picture_for_which_memory_runs_out_is_made_again_after_others_have_left():
    shelf = FinishingShelf()
    shelf.finisher.failing["1.0"] = [torch.OutOfMemoryError()]
    loop = Loop(shelf, 10 * PICTURE)
    for index in range(3):
        loop.submit(str(index), request(float(index), steps=1))
    events = run(loop)
    assert shelf.relieved == 1
    assert drawn(events)["1"] == pytest.approx(alone(request(1.0, steps=1)))
    assert not failures(events)


def test_answers_without_steps_stay_one_a_turn_beside_pictures_that_are_done():
    loop = Loop(Shelf(), 10 * PICTURE)
    for index in range(3):
        loop.submit(f"picture {index}", request(index, steps=1))
        loop.submit(f"text {index}", Rewriting(pipeline="b", texts=("x",)))
    assert sorted(drawn(loop.turn())) == ["picture 0", "picture 1", "picture 2", "text 0"]
    assert [sorted(drawn(loop.turn())) for _ in range(2)] == [["text 1"], ["text 2"]]


def test_the_second_stage_of_a_sample_takes_a_place_and_the_group_stays_within_its_pixels():
    """A sample that goes on in a stage of its own counts until that is done too."""
    shelf = Shelf()
    loop = Loop(TwoStages(shelf.network), 2 * PICTURE)
    for index in range(6):
        loop.submit(str(index), request(index, steps=2))
    most = 0
    while not loop.idle:
        loop.turn()
        most = max(most, sum(len(group.members) for group in loop._groups))
    assert most == 2
    assert sum(shelf.network.batches) == 6 * 2 * 2 * 2  # samples, stages, steps, rows


class TwoStages(Shelf):
    """Every sample is drawn twice, the second time in a group of another stage."""

    def open(self, name: str, in_use: object) -> ToyPipeline:
        pipeline = super().open(name, in_use)
        encode = pipeline.encode

        def encode_first(asked: Request):
            def second(index: int, first: Sample) -> Sample:
                (again,) = encode(replace(asked, seeds=(index,)))
                return replace(again, index=index, key=replace(again.key, stage="second"))

            encoded = encode(asked)
            assert isinstance(encoded, list)
            for sample in encoded:
                sample.finish = lambda first: second(first.index, first)
            return encoded

        pipeline.encode = encode_first
        return pipeline


class FarClock:
    """The clock of a device that goes on when it is told to."""

    def __init__(self) -> None:
        self.marks: list[FarMark] = []
        self.passed = 0

    def __call__(self) -> FarMark:
        self.marks.append(FarMark(self, len(self.marks)))
        return self.marks[-1]


@dataclass
class FarMark:
    clock: FarClock
    number: int

    @property
    def passed(self) -> bool:
        return self.number < self.clock.passed

    def seconds_since(self, earlier: FarMark) -> float:
        return float(self.number - earlier.number)


def test_no_more_than_two_steps_are_on_their_way_to_a_device_and_nothing_waits_for_it():
    clock, shelf = FarClock(), Shelf()
    loop = Loop(shelf, 10 * PICTURE, clock=clock)
    loop.submit("slow", request(steps=5))
    for _ in range(4):
        loop.turn()
    assert len(shelf.network.batches) == 2
    assert loop.device_is_behind
    loop.submit("late", request(2.0, steps=5))  # is encoded meanwhile
    loop.turn()
    assert len(loop._running) == 2
    clock.passed = len(clock.marks)
    assert not loop.device_is_behind
    loop.turn()
    assert shelf.network.batches == [2, 2, 4]


def test_seconds_are_those_between_marks_on_the_device():
    clock = FarClock()
    loop = Loop(Shelf(), 10 * PICTURE, clock=clock)
    loop.submit("it", request(steps=3))
    events: list[Event] = []
    while not loop.idle:
        clock.passed = len(clock.marks)
        events += loop.turn()
    (timings,) = [event.drawing.timings for event in events if isinstance(event, Drawn)]
    assert (timings.encode_s, timings.denoise_s, timings.decode_s) == (1, 3, 1)
    assert [event.done for event in events if isinstance(event, Progress)] == [1, 2, 3]


class PretendedEvent:
    """An event of a CUDA device that reaches it when the test says so, and may not be waited for."""

    now_ms = 0.0
    reached = 0
    made = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        type(self).made += 1
        self.number, self.at_ms = self.made, self.now_ms

    def query(self) -> bool:
        return self.number <= self.reached

    def elapsed_time(self, later: PretendedEvent) -> float:
        assert self.query()
        assert later.query()
        return later.at_ms - self.at_ms

    def synchronize(self) -> None:
        raise AssertionError("the loop waits for its device")


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> type[PretendedEvent]:
    class Event(PretendedEvent):
        pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", Event.synchronize)
    return Event


def test_on_a_cuda_device_seconds_are_read_from_its_events(pretended_cuda: type[PretendedEvent]):
    class Slow(Network):
        def __call__(self, *inputs: object) -> torch.Tensor:
            pretended_cuda.now_ms += 500
            return super().__call__(*inputs)

    pretended_cuda.reached = 1000
    loop = Loop(Shelf(Slow()), 10 * PICTURE, device=torch.device("cuda"))
    loop.submit("it", request(steps=3))
    (timings,) = [event.drawing.timings for event in run(loop) if isinstance(event, Drawn)]
    assert (timings.encode_s, timings.denoise_s, timings.decode_s) == (0, 1.5, 0)


def test_a_step_that_the_device_has_not_done_is_no_reason_to_wait(pretended_cuda: type[PretendedEvent]):
    shelf = Shelf()
    loop = Loop(shelf, 10 * PICTURE, device=torch.device("cuda"))
    loop.submit("it", request(steps=9))
    for _ in range(20):
        loop.turn()
    assert len(shelf.network.batches) == 2
    pretended_cuda.reached = pretended_cuda.made
    loop.turn()
    assert len(shelf.network.batches) == 3


def test_marks_of_a_cuda_device_tell_the_devices_seconds_once_it_has_passed_them(
    pretended_cuda: type[PretendedEvent],
):
    mark = clock_of(torch.device("cuda"))
    begin = mark()
    pretended_cuda.now_ms += 1500
    end = mark()
    assert not end.passed
    assert end.seconds_since(begin) < 1
    pretended_cuda.reached = 2
    assert end.passed
    assert end.seconds_since(begin) == 1.5
