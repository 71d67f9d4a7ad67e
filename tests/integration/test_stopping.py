"""`understudy serve` says where it is and what it waits for, and never shows a traceback: real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.running_server import HTTP, RunningServer, eventually, preloading, start_server

LONG = {"prompt": "a red circle", "samples": 1, "num_inference_steps": 50, "width": 1024, "height": 1024}
SHORT = LONG | {"num_inference_steps": 20, "width": 512, "height": 512}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose manifest names a checkpoint that is not there: it is up at once and draws nothing."""
    manifest = tmp_path / "weights.yaml"
    entry = {"family": "sd15", "parts": {"pipeline": {"folder": "nowhere"}}}
    manifest.write_text(yaml.safe_dump({"pipelines": {"sd": entry}}))
    server = start_server(tmp_path, manifest, accounts=False, wait=False, devices="cpu", preload="false")
    try:
        eventually(lambda: is_up(server))
        yield server
    finally:
        server.stop()


def is_up(server: RunningServer) -> bool:
    try:
        return HTTP.get(f"{server.url}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def log_of(server: RunningServer) -> str:
    text = server.log.read_text()
    assert "Traceback" not in text, text
    return text


def test_a_server_that_is_up_says_where_and_on_what(idle: RunningServer) -> None:
    told = eventually(lambda: "Ctrl-C stops it." in idle.log.read_text() and idle.log.read_text())
    assert "Understudy is up." in told
    assert f"address   {idle.url}\n" in told
    assert f"pages     {idle.url}/docs\n" in told
    assert "devices   cpu\n" in told
    assert HTTP.get(f"{idle.url}/docs", timeout=5).status_code == 200


def test_ctrl_c_ends_an_idle_server_with_words(idle: RunningServer) -> None:
    idle.process.send_signal(signal.SIGINT)
    assert idle.process.wait(60) == 0
    assert "Stopping. Nothing is being drawn. Ctrl-C again leaves at once." in log_of(idle)


def test_a_termination_ends_an_idle_server_with_words(idle: RunningServer) -> None:
    idle.process.send_signal(signal.SIGTERM)
    assert idle.process.wait(60) == -signal.SIGTERM
    assert "Stopping. Nothing is being drawn. A second signal leaves at once." in log_of(idle)


@pytest.fixture
def drawing(tmp_path: Path, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """A server that draws a picture for a long time, for a caller who waits."""
    manifest = preloading(demo_manifest_path, tmp_path / "manifest", "stable-diffusion-v1-5")
    server = start_server(tmp_path, manifest, devices="cpu", sync_wait_s="300")
    try:
        threading.Thread(target=lambda: call(server, LONG), daemon=True).start()
        eventually(lambda: "understudy_running 1.0" in HTTP.get(f"{server.url}/metrics").text)
        yield server
    finally:
        server.stop()


def call(server: RunningServer, wanted: dict[str, object]) -> httpx.Response | None:
    try:
        return server.post("text2img", model_id="stable-diffusion-v1-5", **wanted)
    except httpx.TransportError:
        return None


def children(process: subprocess.Popen[bytes]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for path in listed for pid in path.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_and_takes_the_engines_along(
    drawing: RunningServer, first: signal.Signals
) -> None:
    engines = children(drawing.process)
    assert engines
    drawing.process.send_signal(first)
    eventually(lambda: "Waiting for 1 request being drawn." in log_of(drawing))
    assert drawing.process.poll() is None, "the caller is waited for"

    def sent_again() -> bool:
        # What comes in the same moment counts as one press, so the second one may need another.
        if drawing.process.poll() is None:
            drawing.process.send_signal(signal.SIGINT)
        return drawing.process.poll() is not None

    eventually(sent_again, 10)
    assert drawing.process.returncode == 128 + signal.SIGINT
    assert "Left at once" in log_of(drawing)
    eventually(lambda: not any(is_alive(pid) for pid in engines), 30)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_caller_who_waits_gets_the_picture_before_the_server_leaves(
    tmp_path: Path, demo_manifest_path: Path
) -> None:
    manifest = preloading(demo_manifest_path, tmp_path / "manifest", "stable-diffusion-v1-5")
    server = start_server(tmp_path, manifest, devices="cpu", sync_wait_s="300")
    answers: list[httpx.Response | None] = []
    try:
        caller = threading.Thread(target=lambda: answers.append(call(server, SHORT)))
        caller.start()
        eventually(lambda: "understudy_running 1.0" in HTTP.get(f"{server.url}/metrics").text)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
        caller.join()
    finally:
        server.stop()
    (answer,) = answers
    assert answer is not None
    assert answer.json()["status"] == "success"
    assert "Waiting for 1 request being drawn." in log_of(server)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"UNDERSTUDY_MANIFEST": "nothing.yaml"}, "There is no manifest at nothing.yaml"),
        ({"UNDERSTUDY_DATA": "/dev/null/x"}, "The data folder cannot be reached"),
        ({"UNDERSTUDY_HOST": "192.0.2.7"}, "Cannot listen on 192.0.2.7"),
        ({"UNDERSTUDY_DATABASE_URL": "mysql://x/y"}, "mysql is not a known database"),
        ({"UNDERSTUDY_STORAGE_URL": "az://container"}, "Account must be specified"),
        ({"UNDERSTUDY_DEVICES": "gpu 0"}, "gpu 0 is no device"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_server_that_cannot_start_says_why_in_a_line(
    tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    (tmp_path / "weights.yaml").write_text("pipelines: {}\n")
    given = {"UNDERSTUDY_DEVICES": "cpu", "UNDERSTUDY_PORT": "18533", **variables}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "server", "serve"],
        cwd=tmp_path,
        env=environment | given | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
