"""The engine's loop on networks of one multiplication, where every order and failure can be provoked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from pipelines.denoising.loop import Loop
from pipelines.denoising.needs import Needs, Parts
from pipelines.denoising.pipeline import DirectAnswer
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.drawing import Drawing
from pipelines.errors import DrawingFailed, InvalidInput, OutOfMemory, UnknownPipeline
from pipelines.group import GroupKey, group_key
from pipelines.image_io import RGBImage
from pipelines.messages import Drawn, Event, Failed, PartResidency, Progress, Residency
from pipelines.request import Request, Rewriting, TextToImage, pipelines_of

SIDE = 8
PICTURE = SIDE * SIDE


@dataclass
class CountdownSampler:
    total: int
    position: int = 0

    @property
    def done(self) -> bool:
        return self.position == self.total

    @property
    def timestep(self) -> Tensor:
        return torch.tensor(self.total - self.position)

    def model_input(self, latents: Tensor) -> Tensor:
        return latents

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        self.position += 1
        return prediction + 0.01 * torch.randn(latents.shape, generator=generator)


@dataclass
class Network:
    """Halves its input; refuses batches beyond its memory, and any that contains the poison."""

    most_rows: int = 1000
    refusal: type[Exception] = torch.OutOfMemoryError
    words: str = "pretended"
    poison: float | None = None
    batches: list[int] = field(default_factory=list)

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        if len(latents) > self.most_rows:
            raise self.refusal(self.words)
        if self.poison is not None and (conditioning["prompt"] == self.poison).any():
            raise ValueError("poison")
        self.batches.append(len(latents))
        return latents * 0.5 + conditioning["prompt"] / timesteps.view(-1, 1)


@dataclass
class ToyPipeline:
    name: str
    network: Network
    modules: Mapping[str, torch.nn.Module] = field(default_factory=dict)

    def encode(self, request: Request) -> list[Sample] | DirectAnswer:
        if isinstance(request, Rewriting):
            return DirectAnswer(lambda: Drawing(images=(), texts=tuple(map(str.upper, request.texts))))
        if request.prompt == "refused":
            raise InvalidInput("prompt", "is refused")
        return [self._sample(request, index, seed) for index, seed in enumerate(request.seeds)]

    def _sample(self, request: Request, index: int, seed: int) -> Sample:
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.tensor([[float(request.prompt)]])
        return Sample(
            request=request,
            index=index,
            key=group_key(request),
            latents=torch.randn((1, 1), generator=generator),
            conditioning=Conditioning({"prompt": prompt}, {"prompt": torch.zeros(1, 1)}),
            guidance_scale=request.guidance_scale,
            generator=generator,
            sampler=CountdownSampler(request.num_inference_steps),
            denoiser=Denoiser(self.network),
            finish=lambda sample: Picture(RGBImage(1, 1, sample.latents.numpy().tobytes())),
        )

    def needs(self, request: Request) -> Needs:
        return Needs()

    def attach(self, key: GroupKey) -> None:
        if key.pipeline != self.name:
            raise LookupError(key)


@dataclass
class Shelf:
    """A pool with room for so many pipelines at a time."""

    network: Network = field(default_factory=Network)
    room: int = 10
    known: Collection[str] = ("a", "b")
    resident: tuple[str, ...] = ()
    used_bytes: int = 0
    opened: list[str] = field(default_factory=list)

    def can_open(self, name: str, in_use: Collection[str]) -> bool:
        return len({*in_use, name}) <= self.room

    @property
    def parts(self) -> tuple[PartResidency, ...]:
        return ()

    def can_take(self, request: Request, running: Collection[str]) -> bool:
        needed = pipelines_of(request)
        fit = [self.can_open(each, {*running, *needed}) for each in needed]
        return all(fit)

    def bring(self, name: str, parts: Parts, in_use: Collection[str]) -> None:
        assert name in self.resident

    def open(self, name: str, in_use: Collection[str]) -> ToyPipeline:
        if name not in self.known:
            raise UnknownPipeline(name)
        if name not in self.resident:
            self.opened.append(name)
            self.resident = (*(other for other in self.resident if other in in_use), name)
        return ToyPipeline(name, self.network)

    def relieve(self, in_use: Collection[str]) -> bool:
        return False


def request(
    prompt: float | str = 1.0, *, steps: int = 5, pipeline: str = "a", images: int = 1, seed: int = 1
):
    return TextToImage(
        pipeline=pipeline,
        prompt=str(prompt),
        width=SIDE,
        height=SIDE,
        num_inference_steps=steps,
        guidance_scale=2.0,
        seeds=tuple(range(seed, seed + images)),
    )


def run(loop: Loop, until: Callable[[list[Event]], bool] | None = None, turns: int = 1000) -> list[Event]:
    events: list[Event] = []
    for _ in range(turns):
        if loop.idle or (until and until(events)):
            return events
        events += loop.turn()
    raise AssertionError(f"not done after {turns} turns: {events}")


def drawn(events: list[Event]) -> dict[str, list[float]]:
    return {
        event.ticket_id: [
            torch.frombuffer(bytearray(image.pixels), dtype=torch.float32).item()
            for image in event.drawing.images
        ]
        for event in events
        if isinstance(event, Drawn)
    }


def failures(events: list[Event]) -> dict[str, Exception]:
    return {event.ticket_id: event.error for event in events if isinstance(event, Failed)}


def alone(asked: Request) -> list[float]:
    loop = Loop(Shelf(), PICTURE)
    loop.submit("alone", asked)
    return drawn(run(loop))["alone"]


def test_a_short_request_that_arrives_late_finishes_first():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("long", request(steps=50))
    events = run(loop, until=lambda events: len(events) > 10)
    loop.submit("short", request(2.0, steps=4))
    order = list(drawn(events + run(loop)))
    assert order == ["short", "long"]


def test_late_joiners_share_evaluations_and_get_the_picture_they_would_have_got_alone():
    shelf = Shelf()
    loop = Loop(shelf, 10 * PICTURE)
    asked = {
        str(index): request(index, steps=3 + index, seed=index, images=1 + index % 2) for index in range(5)
    }
    events: list[Event] = []
    for name, one in asked.items():
        loop.submit(name, one)
        events += loop.turn()
    results = drawn(events + run(loop))
    assert results.keys() == asked.keys()
    for name, one in asked.items():
        assert results[name] == pytest.approx(alone(one), abs=1e-5)
    evaluations_one_after_the_other = sum(one.num_inference_steps * len(one.seeds) for one in asked.values())
    assert len(shelf.network.batches) < evaluations_one_after_the_other / 2


def test_groups_of_different_keys_take_turns():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("first", request(steps=20))
    loop.submit("other key", request(steps=20, pipeline="b"))
    events = run(loop, until=lambda events: sum(isinstance(event, Progress) for event in events) == 10)
    done = {event.ticket_id: event.done for event in events if isinstance(event, Progress)}
    assert done == {"first": 5, "other key": 5}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_group_that_does_not_fit_the_memory_is_halved_and_loses_nobody(
    refusal: type[Exception], words: str
):
    shelf = Shelf(Network(most_rows=4, refusal=refusal, words=words))
    loop = Loop(shelf, 100 * PICTURE)
    asked = {str(index): request(index, seed=index) for index in range(9)}
    for name, one in asked.items():
        loop.submit(name, one)
    results = drawn(run(loop))
    for name, one in asked.items():
        assert results[name] == pytest.approx(alone(one), abs=1e-5)
    assert max(shelf.network.batches) <= 4


def test_a_request_that_does_not_fit_alone_fails_and_the_engine_goes_on():
    shelf = Shelf(Network(most_rows=1))
    loop = Loop(shelf, 100 * PICTURE)
    loop.submit("too large", request())
    assert isinstance(failures(run(loop))["too large"], OutOfMemory)
    shelf.network.most_rows = 2
    loop.submit("next", request())
    assert drawn(run(loop))["next"] == pytest.approx(alone(request()))


def test_a_sample_that_breaks_the_network_takes_nobody_along():
    loop = Loop(Shelf(Network(poison=13.0)), 10 * PICTURE)
    for name, prompt in (("before", 1.0), ("poisoned", 13.0), ("after", 2.0)):
        loop.submit(name, request(prompt))
    events = run(loop)
    assert isinstance(failures(events)["poisoned"], DrawingFailed)
    assert drawn(events)["before"] == pytest.approx(alone(request(1.0)))
    assert drawn(events)["after"] == pytest.approx(alone(request(2.0)))


def test_a_device_that_is_lost_ends_the_loop():
    class Lost(Network):
        def __call__(self, *_: object) -> Tensor:
            raise torch.AcceleratorError("device-side assert")

    loop = Loop(Shelf(Lost()), PICTURE)
    loop.submit("any", request())
    with pytest.raises(torch.AcceleratorError):
        run(loop)


def test_cancelling_one_request_touches_no_other():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("kept", request(steps=10))
    loop.submit("cancelled", request(steps=10, images=3))
    loop.turn()
    loop.cancel("cancelled")
    loop.cancel("never heard of")
    events = run(loop)
    assert list(drawn(events)) == ["kept"]
    assert {event.ticket_id for event in events if isinstance(event, Progress)} == {"kept"}


def test_a_waiting_request_can_be_cancelled():
    loop = Loop(Shelf(), PICTURE)
    loop.submit("running", request())
    loop.turn()
    loop.submit("waiting", request())
    loop.cancel("waiting")
    assert list(drawn(run(loop))) == ["running"]


def test_what_cannot_be_drawn_fails_in_the_callers_words_and_alone():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("refused", request("refused"))
    loop.submit("unknown", request(pipeline="nowhere"))
    loop.submit("good", request())
    events = run(loop)
    assert str(failures(events)["refused"]) == "prompt: is refused"
    assert isinstance(failures(events)["unknown"], UnknownPipeline)
    assert list(drawn(events)) == ["good"]


def test_a_request_larger_than_the_room_is_drawn_in_parts():
    shelf = Shelf()
    loop = Loop(shelf, 2 * PICTURE)
    loop.submit("large", request(images=5))
    assert drawn(run(loop))["large"] == pytest.approx(alone(request(images=5)), abs=1e-5)
    assert max(shelf.network.batches) == 4  # two samples, two rows each


def test_what_has_no_room_lets_others_past_until_its_patience_ends():
    shelf = Shelf(room=1)
    patient, impatient = (
        Loop(shelf, 10 * PICTURE, patience_s=3600),
        Loop(Shelf(room=1), 10 * PICTURE, patience_s=0),
    )
    for loop in (patient, impatient):
        loop.submit("a, first", request(steps=10))
        loop.turn()
        loop.submit("b", request(steps=2, pipeline="b"))
        loop.turn()
        loop.submit("a, later", request(steps=10))
    assert list(drawn(run(patient))) == ["a, first", "a, later", "b"]
    assert list(drawn(run(impatient))) == ["a, first", "b", "a, later"]


def test_direct_answers_are_given_one_a_turn_between_the_steps_of_others():
    loop = Loop(Shelf(), PICTURE)
    loop.submit("picture", request(steps=5))
    for text in ("first", "second"):
        loop.submit(text, Rewriting(pipeline="b", texts=(text,)))
    turns = [[type(event) for event in loop.turn() if not isinstance(event, Residency)] for _ in range(2)]
    assert turns == [[Progress, Drawn], [Progress, Drawn]]
    loop.submit("cancelled", Rewriting(pipeline="b", texts=("never",)))
    loop.cancel("cancelled")
    assert list(drawn(run(loop))) == ["picture"]


def test_a_direct_answer_is_all_decoding():
    loop = Loop(Shelf(), PICTURE)
    loop.submit("text", Rewriting(pipeline="a", texts=("one", "two")))
    (event,) = (event for event in run(loop) if isinstance(event, Drawn))
    assert event.drawing.texts == ("ONE", "TWO")
    assert event.drawing.timings.decode_s > 0
    assert (event.drawing.timings.denoise_s, event.drawing.timings.evaluations) == (0, 0)


def test_residency_is_told_when_it_changes():
    loop = Loop(Shelf(room=1), PICTURE)
    loop.submit("1", request())
    loop.submit("2", request(pipeline="b"))
    told = [event.resident for event in run(loop) if isinstance(event, Residency)]
    assert told == [("a",), ("b",)]


def test_progress_counts_every_evaluation_of_all_pictures():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("it", request(steps=4, images=2))
    progress = [event for event in run(loop) if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_a_drawing_says_how_many_evaluations_it_really_took():
    loop = Loop(Shelf(), 10 * PICTURE)
    loop.submit("two", request(steps=7, images=2))
    (event,) = (event for event in run(loop) if isinstance(event, Drawn))
    assert event.drawing.timings.evaluations == 14
