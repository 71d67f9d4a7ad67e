"""What administrators see of the engines: over HTTP, in the metrics, and by `understudy ps`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from pipelines.messages import PartResidency
from server.__main__ import main
from server.engines.engine import EngineMemory, EngineState
from tests.contract.segmind_application.application import World, body
from tests.contract.segmind_application.conftest import running as running
from tests.contract.segmind_application.conftest import world as world

MEMORY = EngineMemory(
    device="cuda:0",
    budget_bytes=24_000_000_000,
    used_bytes=6_200_000_000,
    parts=(
        PartResidency("sdxl", "unet", "device", 5_100_000_000),
        PartResidency("kolors", "text_encoder", "host", 12_000_000_000),
        PartResidency("kolors", "unet", "device", 1_000_000_000),
        PartResidency("kolors", "vae", "device", 100_000_000),
    ),
)


@pytest.fixture
def client(running: tuple[World, TestClient], world: World) -> Iterator[TestClient]:
    _, client = running
    world.engine.memory = MEMORY
    yield client
    world.engine.memory = EngineMemory()
    world.engine.gate.set()


@pytest.fixture(scope="module")
def admin_key(running: tuple[World, TestClient]) -> str:
    world, client = running

    async def create() -> str:
        accounts = world._services.accounts
        account = await accounts.create("root", is_administrator=True)
        return await accounts.create_key(account.id)

    assert client.portal
    return client.portal.call(create)


def engines(client: TestClient, key: str) -> Any:
    return client.get("/engines", headers={"x-api-key": key})


@contextmanager
def drawing(client: TestClient, world: World, many: int) -> Iterator[list[str]]:
    """Requests that an engine has until the end of the block, of two accounts."""
    world.engine.gate.clear()
    keys = [world.rich if number % 2 else world.other for number in range(many)]
    answers = [
        client.post("/v2/kandinsky2.2-txt2img", json=body("kandinsky2.2-txt2img"), headers={"x-api-key": key})
        for key in keys
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
    try:
        yield [answer.json()["request_id"] for answer in answers]
    finally:
        world.engine.gate.set()
        for answer, key in zip(answers, keys, strict=True):
            ask = partial(client.get, answer.json()["status_url"], headers={"x-api-key": key})
            wait_until(lambda ask=ask: ask().json()["status"] == "COMPLETED")


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
    raise AssertionError("it never came to hold")


def test_only_an_administrator_sees_the_engines(client: TestClient, world: World, admin_key: str) -> None:
    client.headers.pop("x-api-key", None)
    assert client.get("/engines").status_code == 401
    assert engines(client, "nobody's").status_code == 401
    refused = engines(client, world.rich)
    assert (refused.status_code, refused.json()) == (403, {"error": "/engines needs an administrator's key"})
    assert engines(client, admin_key).status_code == 200
    bearer = client.get("/engines", headers={"authorization": f"Bearer {admin_key}"})
    assert bearer.status_code == 200


def test_in_open_mode_too(
    client: TestClient, world: World, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = world._services.settings.model_copy(update={"auth": "open"})
    monkeypatch.setitem(client.app.state._state, "services", replace(world._services, settings=opened))
    assert engines(client, "anybody").status_code == 403
    assert engines(client, admin_key).status_code == 200


def test_what_is_loaded_is_told_by_pipeline_part_and_place(client: TestClient, admin_key: str) -> None:
    (engine,) = engines(client, admin_key).json()["engines"]
    assert engine["pipelines"] == [
        {
            "name": "kolors",
            "bytes": 13_100_000_000,
            "parts": [
                {"name": "text_encoder", "place": "host", "bytes": 12_000_000_000},
                {"name": "unet", "place": "device", "bytes": 1_000_000_000},
                {"name": "vae", "place": "device", "bytes": 100_000_000},
            ],
        },
        {
            "name": "sdxl",
            "bytes": 5_100_000_000,
            "parts": [{"name": "unet", "place": "device", "bytes": 5_100_000_000}],
        },
    ]
    sums = engine["used_bytes"], engine["host_bytes"], engine["budget_bytes"]
    assert sums == (6_200_000_000, 12_000_000_000, 24_000_000_000)
    assert (engine["name"], engine["device"], engine["state"], engine["reason"]) == (
        "paint", "cuda:0", "ready", None,
    )  # fmt: skip


def test_an_engine_that_cannot_draw_is_shown_with_the_reason(
    client: TestClient, world: World, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.engine, "state", EngineState.starting)
    monkeypatch.setattr(world.engine, "reason", "loading kolors")
    monkeypatch.setattr(world.engine, "memory", EngineMemory())
    (engine,) = engines(client, admin_key).json()["engines"]
    assert (engine["state"], engine["reason"]) == ("starting", "loading kolors")
    assert (engine["pipelines"], engine["used_bytes"], engine["budget_bytes"]) == ([], 0, None)


def test_what_runs_and_waits_is_told(client: TestClient, world: World, admin_key: str) -> None:
    # Four pictures of 512 x 512 fill a group, and two more wait.
    world.engine.group_pixels = 4 * 512 * 512
    with drawing(client, world, 6) as ids:
        wait_until(lambda: len(world.engine.requests) == 4)
        answer = engines(client, admin_key).json()
        (engine,) = answer["engines"]
        assert [each["id"] for each in engine["running"]] == ids[:4]
        assert {each["account"] for each in engine["running"]} == {"rich", "other"}
        for each in engine["running"]:
            assert (each["kind"], each["width"], each["height"], each["images"]) == (
                "prior_text_to_image", 512, 512, 1,
            )  # fmt: skip
            assert each["seconds"] >= 0
        (waiting,) = answer["waiting"]
        assert (waiting["requests"], waiting["accounts"]) == (2, 2)
        assert waiting["longest_s"] >= 0
        figures = client.get("/metrics").text
        pipeline = engine["running"][0]["pipeline"]
        assert f'understudy_engine_running{{engine="paint",pipeline="{pipeline}"}} 4.0' in figures
        assert f'understudy_waiting{{pipeline="{pipeline}"}} 2.0' in figures
    answer = engines(client, admin_key).json()
    assert (answer["engines"][0]["running"], answer["waiting"]) == ([], [])


def test_the_metrics_have_the_bytes_of_every_part(client: TestClient) -> None:
    figures = client.get("/metrics").text
    loaded = 'understudy_loaded_bytes{engine="paint",part="text_encoder",pipeline="kolors",place="host"}'
    assert float(figures.partition(f"{loaded} ")[2].split()[0]) == 12e9
    assert figures.count("understudy_loaded_bytes{") == 4
    assert 'understudy_engine_budget_bytes{engine="paint"} 2.4e+10' in figures
    assert 'understudy_engine_ready{engine="paint"} 1.0' in figures


def test_the_document_describes_the_page(client: TestClient, admin_key: str) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/engines"]["get"]
    assert operation["tags"] == ["administration"]
    assert {"401", "403"} <= operation["responses"].keys()
    assert {"APIKeyHeader": []} in operation["security"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = engines(client, admin_key).json()
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer)


class Stub(BaseHTTPRequestHandler):
    """Answers every call with what its server was given."""

    def do_GET(self) -> None:
        status, content = self.server.answer(self.path, self.headers)
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def answering(answer: Callable[[str, Any], tuple[int, bytes]]) -> Iterator[str]:
    """A server on this machine that answers so; its URL."""
    with HTTPServer(("127.0.0.1", 0), Stub) as stub:
        stub.answer = answer
        thread = Thread(target=stub.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{stub.server_port}"
        finally:
            stub.shutdown()
            thread.join()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("UNDERSTUDY_ADMIN_KEY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    return monkeypatch


def test_ps_shows_it_all_in_tables_and_as_json(
    client: TestClient,
    world: World,
    admin_key: str,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.engine.group_pixels = 4 * 512 * 512
    with drawing(client, world, 6) as ids:
        wait_until(lambda: len(world.engine.requests) == 4)
        answer = engines(client, admin_key)
    seen: list[str | None] = []

    def give(path: str, headers: Any) -> tuple[int, bytes]:
        assert path == "/engines"
        seen.append(headers["x-api-key"])
        return 200, answer.content

    with answering(give) as url:
        port = url.rpartition(":")[2]
        environment.setenv("UNDERSTUDY_HOST", "0.0.0.0")
        environment.setenv("UNDERSTUDY_PORT", port)
        environment.setenv("UNDERSTUDY_ADMIN_KEY", "the key")
        assert main(["ps"]) == 0
        shown = capsys.readouterr().out
        assert main(["ps", "--json", "--key", "another"]) == 0
        assert json.loads(capsys.readouterr().out) == answer.json()
        assert main(["ps", "--url", f"{url}/"]) == 0
    assert seen == ["the key", "another", "the key"]
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1] == ["paint", "cuda:0", "ready", "6.20", "GB", "24.00", "GB", "12.00", "GB", "4"]
    assert ["paint", "kolors", "text_encoder", "host", "12.00", "GB"] in lines
    assert ["paint", "kolors", "vae", "device", "100.0", "MB"] in lines
    assert [line[0] for line in lines if line and line[0] in ids] == ids[:4]
    assert ["WAITING", "REQUESTS", "ACCOUNTS", "LONGEST"] in lines


def test_ps_of_no_server_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(lambda path, headers: (200, b"")) as url:
        pass  # nobody listens there any more
    assert main(["ps", "--url", url]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"There is no server at {url}; `understudy serve` starts one\n"


@pytest.mark.parametrize(
    ("status", "content", "key", "told"),
    [
        (401, b'{"error": "x"}', None, "This needs an administrator's key"),
        (401, b'{"error": "x"}', "old", "The key is unknown or revoked"),
        (403, b'{"error": "x"}', "mine", "The key is no administrator's"),
        (503, b'{"error": "the database does not answer"}', "k", "says: the database does not answer"),
        (200, b"<html>hello</html>", "k", "is no Understudy"),
        (404, b'{"detail": "Not Found"}', "k", "is no Understudy"),
        (200, b"[]", "k", "is no Understudy"),
    ],
)
def test_ps_says_in_one_line_why_nothing_is_shown(
    status: int,
    content: bytes,
    key: str | None,
    told: str,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(lambda path, headers: (status, content)) as url:
        asked = ["ps", "--url", url] + (["--key", key] if key else [])
        assert main(asked) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://nowhere.invalid:1"])
def test_ps_of_an_address_that_is_none_is_one_line(
    url: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ps", "--url", url]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
