"""The whole application around an engine and a loader that remember what they were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from starlette.testclient import TestClient

import server.app
import server.loading.loads
from pipelines.drawing import Drawing
from pipelines.image_io import RGBImage
from pipelines.messages import Absent, Maintenance
from pipelines.request import FaceRestoration, Request, Rewriting, map_pictures
from pipelines.weights.fetch_process import Fetched
from pipelines.weights.kinds import SECTIONS
from server.engines.engine import EngineState
from server.http.services import Services
from server.settings import Settings
from tests.contract.parameters.manifest import MANIFEST
from tests.running_server import eventually

Answer: TypeAlias = Any
"""An answer of the test client, whose HTTP library is its own affair."""

PAINT = (7, 9, 99)
"""The colour of every picture that the engine paints."""

HEADERS = ("Idempotency-Key", "x-api-key")
"""Documented parameters that travel in a header."""

ENTERPRISE = "/api/v1/enterprise"


class RecordingEngine:
    """An engine that paints at once, and writes texts in capitals.

    Attributes:
        requests: what it was asked for, each picture in it reduced to its first pixel.
    """

    name = "recording"
    group_pixels = 4 * 2**20
    resident = frozenset[str]()
    absences: tuple[Absent, ...] = ()
    state, reason = EngineState.ready, None

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def watch(self, on_change: Callable[[], None]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def restart(self) -> None: ...

    async def maintain(self, maintenance: Maintenance) -> None: ...

    async def draw(
        self, ticket_id: str, request: Request, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        if isinstance(request, Rewriting):
            self.requests.append(request)
            return Drawing(images=(), texts=tuple(text.upper() for text in request.texts))
        if not isinstance(request, FaceRestoration):
            request = map_pictures(request, _first_pixel)
        self.requests.append(request)
        return Drawing(images=tuple(painted(request.width, request.height) for _ in request.seeds))


class RecordingLoader:
    """The part of the server that brings files and repositories; here it says that they have come.

    The last word of the address tells what comes: ``their/lora`` brings a LoRA, and other words bring a
    checkpoint. It is made for SD1.5 unless
    the caller has said something else.

    Attributes:
        wanted: of each load, the arguments by their names.
        always: the family for which everything is made, whatever the caller has said; None: see above.
    """

    def __init__(self) -> None:
        self.wanted: list[dict[str, object]] = []
        self.always: str | None = None

    async def file(
        self, name: str, url: str, family: str | None, precision: str | None, progress: object
    ) -> Fetched:
        self.wanted.append({"name": name, "url": url, "family": family, "precision": precision})
        return _fetched(url.removesuffix(".safetensors"), self.always or family)

    async def repository(
        self, name: str, hub: str, revision: str, family: str | None, precision: str | None, progress: object
    ) -> Fetched:
        asked = {"name": name, "hub": hub, "revision": revision, "family": family, "precision": precision}
        self.wanted.append(asked)
        return _fetched(hub, self.always or family)

    def forget(self, url: str) -> None:
        """There is nothing to forget."""


def _fetched(address: str, family: str | None) -> Fetched:
    source = {"file": "loaded/it.safetensors"}
    last, family = address.rpartition("/")[2], family or "sd15"
    if last in SECTIONS and last != "checkpoint":
        return Fetched(kind=last, entry={"source": source, "family": family})
    return Fetched(kind="checkpoint", entry={"parts": {"pipeline": source}, "family": family})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call, or of several equal ones.

    Attributes:
        answer: the last one.
        requests: what the engine has drawn or written meanwhile.
        wanted: what the loader was asked for meanwhile.
        announced: the payload of each webhook that was recorded meanwhile, with its ``url``.
        problem: why what came was not loaded.
        stage: where it happened.
    """

    answer: Answer
    requests: tuple[Request, ...]
    wanted: tuple[Mapping[str, object], ...]
    announced: tuple[Mapping[str, object], ...]
    problem: str | None
    stage: Stage

    @property
    def refusal(self) -> str:
        """The text of an answer that is an error, in either dialect; else empty."""
        is_error = self.answer.status_code >= 400 or self.answer.text.startswith('{"status":"error"')
        return self.answer.text if is_error else ""


@dataclass(slots=True)
class Stage:
    """The running application, and who calls it.

    Attributes:
        key: the API key of an administrator with many credits.
        numbers: each of them is used once.
        remembered: outcomes of calls that several tests look at.
    """

    client: TestClient
    services: Services
    engine: RecordingEngine
    loader: RecordingLoader
    key: str
    numbers: Iterator[int] = field(default_factory=partial(count, 1))
    remembered: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    _announced: int = 0

    def send(
        self, method: str, path: str, parameters: Mapping[str, object], *, keyless: bool = False
    ) -> Answer:
        """One call, its parameters in the path and the headers where they belong there, else in the body.

        Args:
            keyless: no API key beside the parameters.
        """
        body = dict(parameters)
        headers = {} if keyless else {"authorization": f"Bearer {self.key}"}
        headers |= {name: str(body.pop(name)) for name in HEADERS if name in body}
        for name in [name for name in body if f"{{{name}}}" in path]:
            path = path.replace(f"{{{name}}}", str(body.pop(name)))
        return self.client.request(method, path, headers=headers, json=body if method == "POST" else None)

    def ask(self, operation: str, **fields: object) -> Answer:
        """The answer of an enterprise operation, as JSON."""
        return self.send("POST", f"{ENTERPRISE}/{operation}", fields).json()

    def outcome(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, object],
        *,
        keyless: bool = False,
        times: int = 1,
    ) -> Outcome:
        """What becomes of so many equal calls."""
        drawn, wanted = len(self.engine.requests), len(self.loader.wanted)
        for _ in range(times - 1):
            self.send(method, path, parameters, keyless=keyless)
        answer = self.send(method, path, parameters, keyless=keyless)
        problem = None
        if path.startswith(f"{ENTERPRISE}/load_"):
            name = parameters.get("model_id", parameters.get("vae_id"))
            problem = self.loading_problem(name)
            self.ask("delete_model", model_id=name)  # nothing stays for later calls
        return Outcome(
            answer=answer,
            requests=tuple(self.engine.requests[drawn:]),
            wanted=tuple(self.loader.wanted[wanted:]),
            problem=problem,
            announced=self._new_announcements(),
            stage=self,
        )

    def loading_problem(self, name: object) -> str | None:
        """Why the load of that name has failed, if it has, as soon as it has ended."""

        def ended() -> tuple[str | None] | None:
            loads = {load["model_id"]: load for load in self.ask("system_details")["loads"]}
            if name not in loads:
                return (None,)
            return (loads[name]["message"],) if loads[name]["status"] == "failed" else None

        return eventually(ended, every_s=0.002)[0]

    def stored(self, url: str) -> Answer:
        """What is found under the URL of an output."""
        return self.client.get(url)

    def run(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The result of an asynchronous function that runs among the application's own tasks."""
        assert self.client.portal is not None
        return self.client.portal.call(function, *arguments)

    def _new_announcements(self) -> tuple[Mapping[str, object], ...]:
        recorded = self.run(self.services.webhooks.all)[self._announced :]
        self._announced += len(recorded)
        return tuple({**json.loads(webhook.payload), "url": webhook.url} for webhook in recorded)


@contextmanager
def opened(folder: Path, **changes: Any) -> Iterator[Stage]:
    """The application on a database of its own in this folder, its settings changed."""
    (folder / "weights.yaml").write_text(yaml.safe_dump(MANIFEST))
    settings = Settings(
        data=folder / "data",
        manifest=folder / "weights.yaml",
        weights=folder / "weights",
        devices="cpu",
        fetch_allowed_hosts=frozenset({"127.0.0.1"}),
        **changes,
    )
    engine, loader = RecordingEngine(), RecordingLoader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.app, "local_engines", lambda _: [engine])
        patch.setattr(server.loading.loads, "Incoming", lambda *_: loader)
        application = server.app.create_app(settings)
        with TestClient(application, raise_server_exceptions=False) as client:
            services: Services = application.state.services
            assert client.portal is not None
            call = client.portal.call
            account = call(partial(services.accounts.create, "caller", is_administrator=True))
            call(services.credits.grant, account.id, 10**9)
            yield Stage(client, services, engine, loader, call(services.accounts.create_key, account.id))


@cache
def painted(width: int, height: int) -> RGBImage:
    """A picture as the engine paints them."""
    return RGBImage(width, height, bytes(PAINT) * (width * height))


def _first_pixel(picture: RGBImage) -> RGBImage:
    return RGBImage(picture.width, picture.height, picture.pixels[:3])
