"""A pull of several repositories: sizes first, several files at once, from Xet's storage where offered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from pipelines.weights.downloads import pull
from pipelines.weights.hub import Hub
from pipelines.weights.lock import read_lock
from pipelines.weights.manifest import Manifest
from pipelines.weights.repositories import repositories
from pipelines.weights.xet import XetStorage
from server.commands.command_line import main
from tests.integration.hub_server import HubServer, Repo
from tests.running_server import eventually

Run = Callable[..., int]

LARGE = save({"weight": np.arange(1_000_000, dtype=np.float32)})
SMALL = save({"weight": np.ones(4, dtype=np.float32)})


def repo(data: bytes = SMALL, **how: Any) -> Repo:
    return Repo({"config.json": b"{}", "model.safetensors": data}, **how)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with a manifest of these repositories: run(url, names, "pull") -> exit status."""
    monkeypatch.setenv("UNDERSTUDY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("UNDERSTUDY_MANIFEST", str(tmp_path / "weights.yaml"))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(url: str, hubs: list[str], *arguments: str) -> int:
        monkeypatch.setenv("HF_ENDPOINT", url)
        (tmp_path / "weights.yaml").write_text(manifest_of(hubs))
        return main(["weights", *arguments])

    return run


def manifest_of(hubs: list[str]) -> str:
    entries = {hub.partition("/")[2]: {"family": "sd15", "parts": {"pipeline": {"hub": hub}}} for hub in hubs}
    return yaml.safe_dump({"pipelines": entries}, sort_keys=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def three() -> Iterator[HubServer]:
    with HubServer({"maker/a": repo(LARGE), "maker/b": repo(), "maker/c": repo()}) as server:
        yield server


HUBS = ["maker/a", "maker/b", "maker/c"]


def test_sizes_are_shown_before_anything_is_fetched(
    three: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(three.url, HUBS, "pull", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert three.fetched() == []
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == HUBS
    assert "4.0 MB" in shown
    assert "of the disk are free" in shown
    assert run(three.url, HUBS, "pull") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("REPOSITORY")
    assert any("maker/a/model.safetensors: 4.0 MB, " in line and " of 6 files" in line for line in lines)
    assert lines[-1] == "All of 3 repositories are here."


def test_files_are_fetched_at_the_same_time(run: Run, weights: Path) -> None:
    """Each waits until all three were asked for: one after the other they would never end."""
    arrived = threading.Barrier(3, timeout=30)

    class Meeting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            arrived.wait()
            return True

    repos = {
        hub: repo(save({"weight": np.full(4, at)}), held={"model.safetensors": Meeting()})
        for at, hub in enumerate(HUBS)
    }
    with HubServer(repos) as hub:
        assert run(hub.url, HUBS, "pull") == 0
    assert len(read_lock(weights).repositories) == 3


def test_a_file_that_fails_loses_no_other_and_is_named_at_the_end(
    three: HubServer, run: Run, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three.repos["maker/b"].altered = {"model.safetensors"}
    assert run(three.url, HUBS, "pull") == 6
    assert set(read_lock(weights).repositories) == {"maker/a@main", "maker/c@main"}
    assert "maker/b: model.safetensors arrived with other bytes" in capsys.readouterr().err
    three.repos["maker/b"].altered = set()
    three.requests.clear()
    assert run(three.url, HUBS, "pull") == 0
    assert three.fetched() == ["model.safetensors"]


def test_the_same_bytes_in_two_places_come_one_after_the_other(run: Run, weights: Path) -> None:
    same = {hub: repo(LARGE) for hub in HUBS}
    with HubServer(same) as hub:
        assert run(hub.url, HUBS, "pull") == 0
    for each in HUBS:
        assert (weights / each / "model.safetensors").read_bytes() == LARGE


def test_json_says_what_is_fetched_and_what_failed(
    three: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(three.url, [*HUBS, "maker/nothing"], "pull", "--json") == 5
    said = json.loads(capsys.readouterr().out)
    assert [each["hub"] for each in said["repositories"]] == HUBS
    assert all(each["here"] for each in said["repositories"])
    assert said["bytes"] > len(LARGE)
    assert list(said["problems"]) == ["maker/nothing"]


def test_all_that_does_not_fit_on_the_disk_is_refused_together(
    three: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for hub in HUBS:
        three.repos[hub].announced = {"model.safetensors": 4 * 10**17}
    assert run(three.url, HUBS, "pull") == 7
    assert "All of it needs 1200000000.0 GB more" in capsys.readouterr().err
    assert three.fetched() == []


def test_ctrl_c_leaves_what_came_to_be_resumed(run: Run, weights: Path, tmp_path: Path) -> None:
    data = save({"weight": np.zeros(8_000_000, dtype=np.float32)})
    started: list[subprocess.Popen[str]] = []

    def interrupt() -> None:
        eventually(lambda: any(part.stat().st_size for part in (weights / ".parts").iterdir()))
        started[0].send_signal(signal.SIGINT)
        started[0].wait(30)

    repository = repo(data, midway={"model.safetensors": interrupt})
    with HubServer({"maker/a": repository, "maker/b": repo()}) as hub:
        (tmp_path / "weights.yaml").write_text(manifest_of(["maker/a", "maker/b"]))
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "server", "weights", "pull"],
                env={**os.environ, "HF_ENDPOINT": hub.url},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        _, said = started[0].communicate(timeout=60)
        assert started[0].returncode == 130, said
        assert "goes on from here" in said
        assert "Traceback" not in said
        left = max(part.stat().st_size for part in (weights / ".parts").iterdir())
        assert 0 < left < len(data)
        hub.requests.clear()
        assert run(hub.url, ["maker/a", "maker/b"], "pull") == 0
        assert f"bytes={left}-" in hub.ranges()
    assert (weights / "maker/a/model.safetensors").read_bytes() == data


class Streams(XetStorage):
    """Xet's storage with one file, whose stream breaks off after some bytes.

    Attributes:
        starts: the bytes from which on it was asked for.
    """

    def __init__(self, data: bytes, breaks_at: int | None = None) -> None:
        self._data, self._breaks_at = data, breaks_at
        self.starts: list[int] = []

    def stream(self, data: Any, headers: dict[str, str], size: int, start: int) -> Iterator[bytes]:
        self.starts.append(start)
        end = len(self._data) if self._breaks_at is None else self._breaks_at
        for at in range(start, end, 300_000):
            yield self._data[at : min(at + 300_000, end)]
        if self._breaks_at is not None:
            raise RuntimeError("the storage does not answer")


def pulled_by(xet: XetStorage, hub: HubServer, weights: Path) -> bytes:
    weights.mkdir(exist_ok=True)
    pull(Hub(hub.url, xet=xet), repositories_of_a()[0], weights)
    return (weights / "maker/a/model.safetensors").read_bytes()


def test_what_the_hub_offers_from_xet_comes_from_there(weights: Path) -> None:
    xet = Streams(LARGE)
    with HubServer({"maker/a": repo(LARGE, xet={"model.safetensors"})}) as hub:
        assert pulled_by(xet, hub, weights) == LARGE
        assert hub.fetched() == ["config.json"]
    assert xet.starts == [0]


def test_without_the_offer_or_for_a_small_file_all_stays_plain(weights: Path, tmp_path: Path) -> None:
    xet = Streams(LARGE)
    with HubServer({"maker/a": repo(LARGE)}) as hub:
        assert pulled_by(xet, hub, weights) == LARGE
        assert "model.safetensors" in hub.fetched()
    with HubServer({"maker/a": repo(SMALL, xet={"model.safetensors"})}) as hub:
        assert pulled_by(xet, hub, tmp_path / "others") == SMALL
    assert xet.starts == []


def test_a_stream_that_breaks_off_goes_on_over_plain_http_where_it_was(weights: Path) -> None:
    xet = Streams(LARGE, breaks_at=1_500_000)
    with HubServer({"maker/a": repo(LARGE, xet={"model.safetensors"})}) as hub:
        assert pulled_by(xet, hub, weights) == LARGE
        assert hub.ranges() == ["bytes=1500000-"]


def test_a_stream_goes_on_where_plain_http_was(weights: Path) -> None:
    xet = Streams(LARGE)
    with HubServer({"maker/a": repo(LARGE, xet={"model.safetensors"})}) as hub:
        name = Hub(hub.url).listing(repositories_of_a()[0], "1" * 40)["model.safetensors"].upstream
        (weights / ".parts").mkdir(parents=True)
        (weights / ".parts" / name).write_bytes(LARGE[:1_234_567])
        assert pulled_by(xet, hub, weights) == LARGE
    assert xet.starts == [1_234_567]


def repositories_of_a() -> Any:
    entry = {"family": "sd15", "parts": {"pipeline": {"hub": "maker/a"}}}
    return repositories(Manifest.model_validate({"pipelines": {"a": entry}}))


def test_other_bytes_from_xet_are_refused(weights: Path) -> None:
    xet = Streams(LARGE[:-1] + b"x")
    with (
        HubServer({"maker/a": repo(LARGE, xet={"model.safetensors"})}) as hub,
        pytest.raises(Exception, match="other bytes"),
    ):
        pulled_by(xet, hub, weights)


def test_the_real_client_asks_the_storage_and_falls_back_to_plain_http(weights: Path) -> None:
    """This hub's storage knows no chunks: the client's own package asks it, and is refused."""
    pytest.importorskip("hf_xet")
    with HubServer({"maker/a": repo(LARGE, xet={"model.safetensors"})}) as hub:
        assert pulled_by(XetStorage(), hub, weights) == LARGE
        asked = [path for _, path, _, _ in hub.requests]
    assert any("/xet-read-token/" in path for path in asked)
    assert any(path.startswith("/cas/") for path in asked)
