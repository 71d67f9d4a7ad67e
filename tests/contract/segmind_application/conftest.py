"""One application for the tests of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import server.app
from server.engines.engine import EngineState
from server.settings import Settings
from tests.contract.segmind_application.application import PaintEngine, World
from tests.contract.segmind_refusal import CHECKPOINTS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, TestClient]]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "weights.yaml").write_text(json.dumps({"pipelines": CHECKPOINTS}))
    settings = Settings(
        data=folder / "data",
        manifest=folder / "weights.yaml",
        queue_limit=2,
        max_body_mb=3,
        max_image_mb=1,
        prices_millicredits={"kolors": 1000},
    )
    engine = PaintEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.app, "local_engines", lambda _: [engine])
        application = server.app.create_app(settings)
        with TestClient(application, raise_server_exceptions=False) as client:
            assert client.portal is not None
            yield World(application.state.services, engine, client.portal.call), client


@pytest.fixture
def world(running: tuple[World, TestClient]) -> Iterator[World]:
    world, _ = running
    yield world
    world.engine.state, world.engine.failure = EngineState.ready, None
    world.engine.warnings = ()
    world.engine.requests.clear()


@pytest.fixture
def client(running: tuple[World, TestClient], world: World) -> TestClient:
    _, client = running
    client.headers["x-api-key"] = world.rich
    return client
