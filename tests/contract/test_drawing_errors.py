"""Whatever goes wrong while drawing is told in its own words, in both dialects, now and later, and logged.

The whole application stands around an engine that is the real loop, on a pipeline that fails at any station.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from starlette.testclient import TestClient

import server.app
from pipelines import errors as drawing
from pipelines.denoising.blame import blaming
from pipelines.denoising.loop import Loop
from pipelines.denoising.needs import Needs, Parts
from pipelines.denoising.sample import Conditioning, Denoiser, Handover, Picture, Sample
from pipelines.denoising.sampler import Steps
from pipelines.drawing import Drawing
from pipelines.group import GroupKey, group_key
from pipelines.image_io import RGBImage
from pipelines.messages import Absent, Drawn, Failed, Maintenance, PartResidency
from pipelines.request import Request, Rewriting, Upscaling
from server.engines.engine import EngineState
from server.errors import CallerGone, InternalError
from server.http.services import Services
from server.settings import Settings
from tests.contract.parameters.manifest import MANIFEST
from tests.contract.parameters.stage import Answer

STATIONS = ("load", "encode", "attach", "denoise", "decode", "hand over")
ENTERPRISE = "/api/v1/enterprise"


class OneStep(Steps):
    def model_input(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def step(
        self, prediction: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        self._position += 1
        return prediction


class FailingPipeline:
    """Draws in one step, and fails at the station that it is told.

    Attributes:
        failure: what is raised there.
    """

    modules: Mapping[str, torch.nn.Module] = {}

    def __init__(self) -> None:
        self.station = ""
        self.failure: Exception = RuntimeError()

    def at(self, station: str) -> None:
        if self.station == station:
            raise self.failure

    def encode(self, request: Request) -> list[Sample]:
        self.at("hand over" if isinstance(request, Upscaling) else "encode")
        assert not isinstance(request, Rewriting)

        def finish(sample: Sample) -> Picture | Handover:
            self.at("decode")
            picture = Picture(RGBImage(8, 8, bytes(192)))
            if self.station != "hand over":
                return picture
            further = Upscaling(pipeline="further", image=picture.image, width=16, height=16)
            return Handover(further, picture)

        return [
            Sample(
                request=request,
                index=index,
                key=group_key(request),
                latents=torch.zeros(1, 1),
                conditioning=Conditioning({}, None),
                guidance_scale=1.0,
                generator=torch.Generator(),
                sampler=OneStep(torch.zeros(1)),
                denoiser=Denoiser(self._predict),
                finish=finish,
            )
            for index, _ in enumerate(request.seeds)
        ]

    def needs(self, request: Request) -> Needs:
        return Needs()

    def attach(self, key: GroupKey) -> None:
        self.at("attach")

    def _predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        self.at("denoise")
        return latents

    def clear_cache(self) -> None: ...


class OnePipeline:
    """A pool of nothing but a pipeline that fails."""

    resident: tuple[str, ...] = ()
    used_bytes = 0
    parts: tuple[PartResidency, ...] = ()

    def __init__(self, pipeline: FailingPipeline) -> None:
        self._pipeline = pipeline

    def can_open(self, name: str, in_use: Collection[str]) -> bool:
        return True

    def can_take(self, request: Request, running: Collection[str]) -> bool:
        return True

    def bring(self, name: str, parts: Parts, in_use: Collection[str]) -> None:
        pass

    def open(self, name: str, in_use: Collection[str]) -> FailingPipeline:
        self._pipeline.at("load")
        return self._pipeline

    def relieve(self, in_use: Collection[str]) -> bool:
        return False


class LoopEngine:
    """The engine's loop in this process; events travel as they do between processes."""

    name = "loop"
    group_pixels = 64 * 2**20
    resident = frozenset[str]()
    absences: tuple[Absent, ...] = ()
    state, reason = EngineState.ready, None

    def __init__(self) -> None:
        self.pipeline = FailingPipeline()

    def watch(self, on_change: Callable[[], None]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def restart(self) -> None: ...

    async def maintain(self, maintenance: Maintenance) -> None: ...

    async def draw(
        self, ticket_id: str, request: Request, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        loop = Loop(OnePipeline(self.pipeline), self.group_pixels)
        loop.submit(ticket_id, request)
        while True:
            for event in pickle.loads(pickle.dumps(loop.turn())):
                match event:
                    case Failed(_, error):
                        raise error
                    case Drawn(_, drawing):
                        return drawing
                    case _:
                        pass


class World:
    """The application, and a caller whose balance is to stay what it is."""

    def __init__(self, client: TestClient, services: Services, engine: LoopEngine) -> None:
        assert client.portal is not None
        self.client, self.services, self.engine = client, services, engine
        self._call = client.portal.call
        account = self._call(partial(services.accounts.create, "caller"))
        self._call(services.credits.grant, account.id, 10**9)
        self._account: int = account.id
        self.key: str = self._call(services.accounts.create_key, account.id)
        self._announced = 0

    @property
    def balance(self) -> int:
        return self._call(self.services.credits.balance, self._account)

    def fail(self, station: str, failure: Exception) -> None:
        self.engine.pipeline.station, self.engine.pipeline.failure = station, failure

    def segmind(self, version: str, slug: str = "kolors") -> Answer:
        headers = {"x-api-key": self.key}
        return self.client.post(f"/{version}/{slug}", headers=headers, json={"prompt": "a fox"})

    def became(self, request_id: str) -> Answer:
        """What is said of a queued request, when it has ended."""
        while True:
            answer = self.client.get(f"/v2/requests/{request_id}/status", headers={"x-api-key": self.key})
            if answer.json()["status"] not in ("QUEUED", "PROCESSING"):
                return answer

    def enterprise(self, operation: str, **fields: object) -> Answer:
        return self.client.post(f"{ENTERPRISE}/{operation}", json={"key": self.key, **fields})

    def text2img(self, **fields: object) -> Answer:
        asked = {"model_id": "photographs", "prompt": "a fox", "enhance_prompt": "no"}
        return self.enterprise("text2img", **asked, **fields)

    def announced(self) -> list[dict[str, Any]]:
        """The webhooks' messages since the last time."""
        recorded = self._call(self.services.webhooks.all)[self._announced :]
        self._announced += len(recorded)
        return [json.loads(webhook.payload) for webhook in recorded]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "weights.yaml").write_text(yaml.safe_dump(MANIFEST))
    settings = Settings(
        data=folder / "data",
        manifest=folder / "weights.yaml",
        weights=folder / "weights",
        enterprise_errors="standard",
        fetch_allowed_hosts=frozenset({"127.0.0.1"}),
    )
    engine = LoopEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.app, "local_engines", lambda _: [engine])
        application = server.app.create_app(settings)
        with TestClient(application, raise_server_exceptions=False) as client:
            yield World(client, application.state.services, engine)


def subclasses(of: type[drawing.GenerationError]) -> Iterator[type[drawing.GenerationError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from subclasses(kind)


def example(kind: type[drawing.GenerationError]) -> drawing.GenerationError:
    if issubclass(kind, drawing.InvalidInput):
        return kind("loras", "fox-lora cannot\nbe drawn")
    if issubclass(kind, drawing.NeverFits):
        return kind("fox-lora", 13_000_000_000, 11_400_000_000)
    return kind("fox-lora cannot be drawn")


STATUSES: Mapping[type[drawing.GenerationError], int] = {
    drawing.InvalidInput: 400,
    drawing.InvalidImage: 400,
    drawing.ImageTooLarge: 413,
    drawing.PoseNotFound: 400,
    drawing.AnnotatorMissing: 400,
    drawing.UnknownAdapter: 400,
    drawing.UnknownPipeline: 404,
    drawing.UnusableCheckpoint: 400,
    drawing.CheckpointUnavailable: 503,
    drawing.OutOfMemory: 503,
    drawing.NeverFits: 503,
    drawing.NumbersOutOfRange: 500,
    drawing.Cancelled: 499,
    drawing.EngineLost: 503,
    drawing.DrawingFailed: 500,
}
WHERE_NO_CHECKPOINT_IS_NAMED = {**STATUSES, drawing.UnusableCheckpoint: 500}
"""The statuses of Segmind's pages, whose checkpoint is the operator's choice."""

FIXED_WORDS = {drawing.DrawingFailed: str(InternalError()), drawing.Cancelled: str(CallerGone())}


def test_every_drawing_error_is_walked_through() -> None:
    assert STATUSES.keys() == set(subclasses(drawing.GenerationError))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the API process said of jobs that failed."""
    return [record.getMessage() for record in caplog.records if record.name == "server.studio"]


@pytest.mark.parametrize("station", STATIONS)
@pytest.mark.parametrize("kind", STATUSES, ids=lambda kind: kind.__name__)
def test_a_drawing_error_is_told_in_its_own_words_by_both_dialects_now_and_later(
    kind: type[drawing.GenerationError], station: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before, error = world.balance, example(kind)
    world.fail(station, error)
    on_a_field = isinstance(error, drawing.InvalidInput)
    words = FIXED_WORDS.get(kind, str(error))

    answer = world.segmind("v1")
    assert answer.status_code == WHERE_NO_CHECKPOINT_IS_NAMED[kind]
    assert words in answer.json()["error"]
    told = [answer.headers["x-request-id"]]

    request_id = world.segmind("v2").json()["request_id"]
    later = world.became(request_id)
    assert (later.status_code, later.json()["status"]) == (422, "FAILED")
    assert words in later.json()["error"]
    told.append(request_id)

    world.announced()
    answer = world.text2img(webhook="http://127.0.0.1:9/hook", track_id="mine")
    assert answer.status_code == STATUSES[kind]
    expected = {"lora_model": ["lora_model fox-lora cannot\nbe drawn"]} if on_a_field else words
    message = answer.json()["message"]
    assert message == expected if on_a_field else words in str(message)
    told.append(answer.headers["x-request-id"])

    (announced,) = world.announced()
    assert (announced["status"], announced["track_id"]) == ("failed", "mine")
    assert "lora_model: fox-lora" in announced["message"] if on_a_field else words in announced["message"]
    fetched = world.enterprise("fetch", request_id=announced["id"]).json()
    assert (fetched["status"], fetched["message"], fetched["output"]) == ("failed", "Failed, Try Again", [])
    assert fetched["error"] == expected if on_a_field else words in str(fetched["error"])

    assert world.balance == before
    said = lines(caplog)
    assert len(said) == len(told)
    for line, request_id in zip(said, told, strict=True):
        assert request_id in line
        assert "fox-lora" in line or "drawing failed" in line
        assert "\n" not in line


@pytest.mark.parametrize("station", STATIONS)
def test_what_nobody_expected_is_told_by_its_id_and_logged_with_its_traceback(
    station: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fail(station, LookupError("secret"))
    for call in (partial(world.segmind, "v1"), world.text2img):
        answer = call()
        body = answer.json()
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert body["request_id"] == answer.headers["x-request-id"]
        (traced,) = [record for record in caplog.records if record.exc_info]
        assert traced.exc_info is not None
        assert isinstance(traced.exc_info[1], LookupError)
        assert body["request_id"] in traced.getMessage()
        assert [body["request_id"] in line for line in lines(caplog)] == [True]
        caplog.clear()


def test_a_picture_that_cannot_be_stored_is_logged_with_its_traceback_and_refunded(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    before = world.balance
    world.fail("", RuntimeError())
    monkeypatch.setattr(world.services.storage, "write", full)
    answer = world.text2img()
    assert (answer.status_code, answer.json()["message"]) == (500, str(InternalError()))
    (record,) = [record for record in caplog.records if record.name == "server.studio"]
    assert answer.json()["request_id"] in record.getMessage()
    assert record.exc_info
    assert world.balance == before


@pytest.mark.parametrize(
    ("slug", "field", "name"),
    [
        ("kolors", "num_inference_steps", "steps"),
        ("kolors", "guidance_scale", "cfg"),
        ("kandinsky2.2-txt2img", "width", "img_width"),
        ("kandinsky2.2-txt2img", "prior_num_inference_steps", "prior_steps"),
        ("kandinsky2.2-txt2img", "prompt", "prompt"),
    ],
)
def test_a_segmind_page_calls_a_field_by_the_pages_own_name(
    slug: str, field: str, name: str, world: World
) -> None:
    world.fail("encode", drawing.InvalidInput(field, "is wrong"))
    answer = world.segmind("v1", slug)
    assert (answer.status_code, answer.json()["error"]) == (400, f"{name}: is wrong")


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("pipeline", "model_id"),
        ("loras", "lora_model"),
        ("embeddings", "embeddings_model"),
        ("controls", "controlnet_model"),
        ("vae", "vae"),
        ("image", "init_image"),
        ("mask", "mask_image"),
        ("token_merging_ratio", "tomesd"),
        ("clip_skip", "clip_skip"),
    ],
)
def test_enterprise_calls_a_field_by_its_wires_name(field: str, name: str, world: World) -> None:
    world.fail("encode", drawing.InvalidInput(field, "is wrong"))
    answer = world.text2img()
    assert (answer.status_code, answer.json()["message"]) == (400, {name: [f"{name} is wrong"]})


def test_a_page_without_a_choice_of_checkpoint_does_not_blame_its_caller_for_one(world: World) -> None:
    world.fail("encode", drawing.InvalidInput("pipeline", "kolors does not draw this"))
    answer = world.segmind("v1")
    assert (answer.status_code, answer.json()["error"]) == (500, "kolors does not draw this")


@pytest.mark.parametrize("station", ["decode", "denoise"])
@pytest.mark.parametrize(
    ("asked", "field", "name"),
    [
        ({"lora_model": "more_details"}, "lora_model", "more_details"),
        ({"embeddings_model": "bad-hands"}, "embeddings_model", "bad-hands"),
        ({"vae": "soft"}, "vae", "soft"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_out_of_range_are_the_fault_of_what_was_put_on_the_checkpoint(
    asked: dict[str, str], field: str, name: str, station: str, world: World
) -> None:
    world.fail(station, drawing.NumbersOutOfRange())
    answer = world.text2img(**asked)
    assert answer.status_code == 400
    (text,) = answer.json()["message"][field]
    assert text.startswith(f"{field} {name}: the networks' numbers went out of range")


@pytest.mark.parametrize(
    "raised",
    [OSError("/weights/x"), ValueError("x"), RuntimeError("shape"), KeyError("x"), AttributeError()],
    ids=repr,
)
def test_what_a_library_says_of_an_adapter_is_told_of_the_adapter(raised: Exception) -> None:
    with pytest.raises(drawing.UnknownAdapter) as told, blaming("loras", ["one", "two", "one"]):
        raise raised
    assert str(told.value) == "loras: one, two cannot be used with this checkpoint"
    assert told.value.__cause__ is raised


@pytest.mark.parametrize("raised", [MemoryError(), torch.OutOfMemoryError(), drawing.OutOfMemory("no room")])
def test_nobody_is_blamed_for_want_of_memory(raised: Exception) -> None:
    with pytest.raises(type(raised)), blaming("loras", ["one"]):
        raise raised


def test_where_no_adapter_is_named_none_is_blamed() -> None:
    with pytest.raises(ValueError, match="x"), blaming("loras", []):
        raise ValueError("x")


def test_what_never_fits_says_what_it_needs_and_nobody_is_asked_to_come_back(world: World) -> None:
    before = world.balance
    words = "sdxl needs 13.0 GB of a device's memory, and there are 11.4 GB"
    for error, comes_back in (
        (drawing.NeverFits("sdxl", 13_000_000_000, 11_400_000_000), False),
        (drawing.OutOfMemory(words), True),
    ):
        world.fail("load", error)
        for answer in (world.segmind("v1"), world.text2img()):
            assert answer.status_code == 503
            assert words in answer.text
            assert ("retry-after" in answer.headers) == comes_back
            assert "try again" not in answer.text.lower()
    assert world.balance == before
