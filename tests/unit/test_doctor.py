"""What `understudy doctor` finds about machine, addresses and database, each made wrong for real."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from server.__main__ import main
from server.accounts.accounts import Accounts
from server.commands.checks import finding, machine, services
from server.commands.checks.finding import Finding, all_findings
from server.commands.checks.machine import Card, Torch
from server.database.database import Database, database_url
from server.settings import Settings

GIB = 1024**3
CUDA = Torch("2.14.1+cu130", "13.0")
ON_CPU = Torch("2.14.1+cpu", None)
CARD = Card("NVIDIA GeForce RTX 4090", "580.95.05", 24 * GIB, 23 * GIB, 8.9)


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that answers everything alike; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep test output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def program(folder: Path, name: str, script: str) -> None:
    """A program that is found by its name."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_an_old_python_is_a_problem() -> None:
    assert machine.python_finding((3, 10, 14)).state == "problem"
    assert machine.python_finding((3, 13, 0)).state == "ok"
    assert machine.python_finding().state == "ok"


def test_torch_is_read_from_its_text_and_never_loaded() -> None:
    torch = machine.installed_torch()
    assert torch is not None
    assert torch.version[0].isdigit()
    assert machine.torch_finding(torch).state == "ok"
    missing = machine.torch_finding(None)
    assert (missing.state, "draws nothing" in missing.words) == ("problem", True)
    assert "[engine]" in missing.remedy


def test_the_version_of_another_torch_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise AssertionError('it was loaded')")
    (tmp_path / "torch/version.py").write_text(
        "from typing import Optional\n__version__ = '2.9.0+cpu'\ncuda: Optional[str] = None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert machine.installed_torch() == Torch("2.9.0+cpu", None)


@pytest.mark.parametrize(
    ("torch", "cards", "wanted", "state", "words"),
    [
        (CUDA, [CARD], "auto", "ok", "new enough for CUDA 13.0"),
        (CUDA, [Card("A", "550.54.14", GIB, GIB, 8.0)], "auto", "problem", "too old for CUDA 13.0"),
        (Torch("2.6", "12.4"), [Card("A", "550.54.14", GIB, GIB, 8.0)], "auto", "ok", "550.54.14"),
        (Torch("2.6", "12.4"), [Card("A", "470.223", GIB, GIB, 8.0)], "cuda:0", "problem", "too old"),
        (ON_CPU, [CARD], "auto", "problem", "built for the CPU alone"),
        (ON_CPU, [CARD], "cpu", "ok", "580.95.05"),
        (CUDA, None, "auto", "ok", "drawn on the CPU"),
        (CUDA, None, "cuda:1", "problem", "nvidia-smi does not answer"),
        (CUDA, [], "auto", "warning", "lists no GPU"),
        (None, [CARD], "auto", "ok", "580.95.05"),
    ],
)
def test_the_driver_is_held_against_what_torch_needs(
    torch: Torch | None, cards: list[Card] | None, wanted: str, state: str, words: str
) -> None:
    found = machine.driver_finding(torch, cards, wanted)
    assert (found.state, words in found.words) == (state, True), found
    assert bool(found.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("cards", "wanted", "visible", "state", "words"),
    [
        ([CARD], "cuda:0", None, "ok", "RTX 4090, 24.7 GB of 25.8 GB free"),
        ([CARD], "cuda:1", None, "problem", "there are 1 GPUs"),
        ([CARD, CARD], "cuda:1", "0", "problem", "there are 1 GPUs"),
        ([Card("GTX 1080", "580.1", 8 * GIB, 8 * GIB, 6.1)], "cuda", None, "problem", "6.1 is below 7.5"),
        ([Card("Busy", "580.1", 8 * GIB, GIB, 8.9)], "cuda:0", None, "warning", "other programs use it"),
        (None, "cuda:0", None, "problem", "no GPU of this machine answers"),
        (None, "cpu", None, "ok", "memory free"),
        (None, "xpu:0", None, "warning", "never tried"),
    ],
)
def test_devices_are_looked_at_one_by_one(
    cards: list[Card] | None, wanted: str, visible: str | None, state: str, words: str
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    (found,) = machine.device_findings(CUDA, cards, Settings(devices=wanted), environment)
    assert (found.state, words in found.words) == (state, True), found


def test_nvidia_smi_is_asked_and_its_failure_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.cards() is None
    line = "0, NVIDIA GeForce RTX 4090, 580.95.05, 24564, 23210, 8.9"
    program(tmp_path, "nvidia-smi", f"print({line!r})\nprint('1, [N/A], [N/A], [N/A], [N/A], [N/A]')")
    (card,) = machine.cards() or []
    assert (card.name, card.driver, card.total // 2**20, card.capability) == (
        "NVIDIA GeForce RTX 4090",
        "580.95.05",
        24564,
        8.9,
    )
    program(tmp_path, "nvidia-smi", "print('Failed to initialize NVML'); raise SystemExit(9)")
    assert machine.cards() is None


def test_a_folder_is_looked_at_and_never_made(tmp_path: Path) -> None:
    found = machine.folder_finding("data folder", tmp_path / "a/b", "UNDERSTUDY_DATA")
    assert (found.state, "made at the start" in found.words) == ("ok", True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    blocked = machine.folder_finding("data folder", tmp_path / "file/b", "UNDERSTUDY_DATA")
    assert (blocked.state, "UNDERSTUDY_DATA" in blocked.remedy) == ("problem", True)
    # A folder that takes nothing, even from root: the kernel's own.
    closed = machine.folder_finding("data folder", Path("/proc/understudy"), "UNDERSTUDY_DATA")
    assert closed.state == "problem"


def test_a_port_that_is_taken_is_a_problem_unless_a_server_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # It accepts and says nothing, as many things do.
        found = services.port_finding(Settings(port=port))
        assert (found.state, found.words) == ("problem", f"127.0.0.1:{port}: in use")
    assert services.port_finding(Settings(port=port)).state == "ok"
    with answering(200, b'{"status": "ok"}') as url:
        found = services.port_finding(Settings(port=int(url.rpartition(":")[2])))
        assert (found.state, "a server answers there now" in found.words) == ("warning", True)
    with answering(200, b"<html>") as url:
        assert services.port_finding(Settings(port=int(url.rpartition(":")[2]))).state == "problem"
    elsewhere = services.port_finding(Settings(host="192.0.2.7"))
    assert (elsewhere.state, "UNDERSTUDY_HOST" in elsewhere.remedy) == ("problem", True)


def test_the_public_url_is_opened_where_it_can_be() -> None:
    def found(url: str | None, **given: str) -> Finding:
        return services.public_url_finding(Settings.model_validate({"public_url": url, **given}))

    assert found(None).state == "ok"
    assert services.ONLY_HERE in found(None).words
    assert services.ONLY_HERE not in found(None, host="0.0.0.0").words
    for here in ("http://localhost:8000", "http://127.0.0.1", "http://[::1]:8000", "http://0.0.0.0:8000"):
        assert (found(here).state, services.ONLY_HERE in found(here).words) == ("warning", True)
    assert "has no address" in found("https://nowhere.invalid").words


def test_a_clock_that_is_wrong_is_noticed() -> None:
    with answering(200, b"", Date=formatdate(time.time() + 4000, usegmt=True)) as url:
        found = services.clock_finding(["http://127.0.0.1:9", url])
    assert (found.state, "behind 127.0.0.1" in found.words) == ("warning", True)
    with answering(403, b"", Date=formatdate(usegmt=True)) as url:
        assert services.clock_finding([url]).state == "ok"
    assert "not compared" in services.clock_finding(["http://127.0.0.1:9"]).words


def migrated(settings: Settings) -> None:
    """Make the database's tables."""

    async def fill() -> None:
        database = Database(database_url(settings))
        await database.migrate()
        await database.close()

    asyncio.run(fill())


def at_revision(settings: Settings, revision: str) -> None:
    """Let the tables say that another version made them."""

    async def change() -> None:
        database = Database(database_url(settings))
        async with database.transaction() as connection:
            await connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
        await database.close()

    asyncio.run(change())


def test_a_database_that_is_not_there_yet_is_left_so(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    database, keys = services.database_findings(settings)
    assert (database.state, "made at the first start" in database.words) == ("ok", True)
    assert (keys.name, keys.state) == ("keys", "warning")
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_asked_for_its_version_and_its_keys(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrated(settings)
    database, keys = services.database_findings(settings)
    assert (database.state, "up to date" in database.words) == ("ok", True)
    assert "keys create" in keys.remedy

    async def create() -> None:
        database = Database(database_url(settings))
        account = await Accounts(database).create("ada")
        await Accounts(database).create_key(account.id)
        await database.close()

    asyncio.run(create())
    assert services.database_findings(settings)[1] == Finding("keys", "ok", "1 valid")
    assert services.database_findings(settings.model_copy(update={"auth": "open"}))[1].state == "warning"
    at_revision(settings, "0001")
    assert "brought from 0001" in services.database_findings(settings)[0].words
    at_revision(settings, "9999")
    (newer,) = services.database_findings(settings)
    assert (newer.state, "newer version" in newer.words) == ("problem", True)


def test_a_server_on_the_database_is_noticed(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrated(settings)

    async def beside() -> list[Finding]:
        database = Database(database_url(settings))
        async with database.hold_server_lock():
            found = await asyncio.to_thread(services.database_findings, settings)
        await database.close()
        return found

    assert ("server", "warning") in {(found.name, found.state) for found in asyncio.run(beside())}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "mysql is not a known database"),
        ("postgresql://u:hidden@127.0.0.1:9/x", "Connect call failed"),
        ("postgresql://u:hidden@nowhere.invalid/x", "nowhere.invalid has no address"),
        ("no url", "cannot be read"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_problem_without_its_password(url: str, words: str) -> None:
    (found,) = services.database_findings(Settings(database_url=url))
    assert (found.state, words in found.words, "hidden" in found.words) == ("problem", True, False), found
    assert "UNDERSTUDY_DATABASE_URL" in found.remedy


def test_a_silent_check_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "PATIENCE_S", 0.1)
    monkeypatch.setattr(finding, "_SLACK_S", 0.0)
    never = threading.Event()

    def silent() -> Finding:
        never.wait()
        return Finding("silent", "ok", "")

    def broken() -> Finding:
        raise KeyError("surprise")

    first, second, third = all_findings(
        {"silent": silent, "broken": broken, "well": lambda: Finding("well", "ok", "")}
    )
    never.set()
    assert (first.state, first.words) == ("problem", "no answer within 0.1 s")
    assert (second.state, second.words) == ("problem", "unexpected KeyError: 'surprise'")
    assert third.state == "ok"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to start in, a hub that refuses, and a port that is free."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("UNDERSTUDY_"):
            monkeypatch.delenv(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("UNDERSTUDY_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("UNDERSTUDY_DEVICES", "cpu")
    return tmp_path


def test_the_exit_status_says_whether_serve_would_work(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 1
    assert "weights.yaml: no such file" in capsys.readouterr().out

    entry = {"family": "sd15", "parts": {"pipeline": {"folder": "sd"}}}
    (alone / "weights.yaml").write_text(yaml.safe_dump({"pipelines": {"sd": entry}}))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "Nothing can be drawn" in printed
    assert "would start, and could draw nothing before there are weights" in printed

    (alone / "sd").mkdir()
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "`understudy serve` would work." in printed
    assert not (alone / "understudy-data").exists()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(os.environ["UNDERSTUDY_PORT"])))
        taken.listen()
        assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["serve_would_work"] is False
    assert [found["name"] for found in told["findings"] if found["state"] == "problem"] == ["port"]
    assert [report["name"] for report in told["pipelines"]] == ["sd"]
    assert told["pipelines"][0]["fit"] == {"CPU (8 GB for weights)": "resident"}


@pytest.mark.parametrize(
    "text", ["pipelines: [", "pipelines: {x: {family: nothing, parts: {}}}", "words", "\x00"]
)
def test_a_manifest_that_cannot_be_read_is_a_problem_in_one_line(
    alone: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (alone / "weights.yaml").write_text(text)
    assert main(["doctor", "--json"]) == 1
    problems = [
        found for found in json.loads(capsys.readouterr().out)["findings"] if found["state"] == "problem"
    ]
    assert [found["name"] for found in problems] == ["manifest"]
    assert "\n" not in problems[0]["words"]
