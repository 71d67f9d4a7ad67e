"""`understudy demo` as somebody runs it, beside the environment and the data folder of a real server."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.demo_pictures import problems
from tests.running_server import eventually, start_server

pytestmark = pytest.mark.slow

FOREIGN = {
    "UNDERSTUDY_DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/real",
    "UNDERSTUDY_STORAGE_URL": "s3://real-bucket/pictures",
    "UNDERSTUDY_STORAGE_ENDPOINT": "http://127.0.0.1:1",
    "UNDERSTUDY_MANIFEST": "/nowhere/weights.yaml",
    "UNDERSTUDY_WEIGHTS": "/nowhere/weights",
    "UNDERSTUDY_PUBLIC_URL": "https://pictures.example",
    "UNDERSTUDY_WEBHOOK_SECRET": "whsec_" + "A" * 40,
    "UNDERSTUDY_PRICES_MILLICREDITS": '{"kolors": 1000000000}',
}
"""What a real server's environment may hold; whoever uses any of it fails, or cannot pay."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def demo(data: Path, port: int, *arguments: str) -> subprocess.Popen[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "server", "demo", "--port", str(port), *arguments],
        env={**others, **FOREIGN, "UNDERSTUDY_DATA": str(data), "UNDERSTUDY_TORCH_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass
class Ended:
    """A demo that has ended by itself: what it printed, and the key that it left."""

    data: Path
    lines: list[str]
    key: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A demo that was killed in the middle of building, and then run to its end."""
    data = tmp_path_factory.mktemp("demo") / "data"
    killed = demo(data, free_port())
    assert killed.stdout is not None
    assert killed.stdout.readline().startswith("built sd15 ")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    run = demo(data, free_port(), "--once")
    printed, complaints = run.communicate(timeout=300)
    assert run.returncode == 0, printed + complaints
    return Ended(data, printed.splitlines(), (data / "demo" / "api-key").read_text().strip())


def test_a_demo_that_was_killed_while_it_built_goes_on_and_draws_what_was_asked(ended: Ended) -> None:
    assert not [line for line in ended.lines if line.startswith("built sd15 ")]
    assert problems(ended.data / "demo" / "pictures") == []


def test_stable_diffusion_is_drawn_first_and_what_is_done_is_said_in_plain_lines(ended: Ended) -> None:
    drawn = [line for line in ended.lines if line.startswith("drew ")]
    assert "enterprise-text2img.png" in drawn[0]
    assert [line.rpartition("(")[2] for line in drawn] == [f"{number} of 5)" for number in range(1, 6)]
    assert not [line for line in ended.lines if "\x1b" in line or "\r" in line]


def test_everything_of_it_lies_in_one_folder(ended: Ended) -> None:
    assert [path.name for path in ended.data.iterdir()] == ["demo"]
    assert stat.S_IMODE((ended.data / "demo" / "api-key").stat().st_mode) == 0o600


@pytest.fixture
def serving(ended: Ended) -> Iterator[tuple[str, list[str]]]:
    """The same demo, started again and left running: its address and what it printed."""
    port = free_port()
    process = demo(ended.data, port)
    assert process.stdout is not None
    lines = list[str]()
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Open "):
            break
    yield f"http://127.0.0.1:{port}", lines
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in complaints


def test_the_next_start_builds_nothing_has_the_same_key_and_ends_with_the_page_to_open(
    ended: Ended, serving: tuple[str, list[str]]
) -> None:
    url, lines = serving
    assert not [line for line in lines if line.startswith("built ")]
    assert ended.key in lines
    assert lines[-1] == f"Open {url}/docs"
    assert httpx.get(f"{url}/docs").status_code == 200
    with httpx.Client(base_url=url, headers={"x-api-key": ended.key}, timeout=60) as client:
        assert client.get("/v1/get-user-credits").json()["credits"] > 0
        load = {"key": ended.key, "url": "https://example.com/model.safetensors", "model_id": "mine"}
        refused = client.post("/api/v1/enterprise/load_model", json=load).json()
        assert refused["status"] == "error", "its key would be an administrator's"


def test_nothing_that_a_demo_made_is_valid_on_a_server_in_the_same_data_folder(
    ended: Ended, random_manifest_path: Path
) -> None:
    server = start_server(ended.data.parent, random_manifest_path, preload="false")
    try:
        assert server.settings.data == ended.data
        refused = httpx.get(f"{server.url}/v1/get-user-credits", headers={"x-api-key": ended.key})
        assert refused.status_code == 401
        models = server.answer("get_all_models")["models"]
        own = yaml.safe_load(random_manifest_path.read_text())
        assert {model["model_id"] for model in models} <= {name for part in own.values() for name in part}
        secrets = [(folder / "webhook-secret").read_text() for folder in (ended.data, ended.data / "demo")]
        assert secrets[0] != secrets[1]
        picture = next((ended.data / "demo" / "outputs").rglob("*.png"))
        assert httpx.get(f"{server.url}/generations/{picture.name}").status_code == 404
    finally:
        server.stop()


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = demo(tmp_path, taken.getsockname()[1], "--once")
        printed, complaints = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert (printed, complaints.count("\n")) == ("", 1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    refused = demo(tmp_path / "data", free_port(), "--once")
    printed, complaints = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert (printed, complaints.count("\n")) == ("", 1)
    assert str(tmp_path / "data") in complaints


def test_ctrl_c_while_it_builds_leaves_without_a_traceback(tmp_path: Path) -> None:
    interrupted = demo(tmp_path / "data", free_port())
    assert interrupted.stdout is not None
    assert interrupted.stdout.readline().startswith("built ")
    interrupted.send_signal(signal.SIGINT)
    _, complaints = interrupted.communicate(timeout=60)
    assert "Traceback" not in complaints
    with pytest.raises(ProcessLookupError):
        eventually(lambda: os.killpg(interrupted.pid, 0), timeout_s=5)
