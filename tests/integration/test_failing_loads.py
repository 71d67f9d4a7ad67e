"""Loads that fail: too large, a full disk, a transfer that stalls. The server goes on, and so can they."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from server.loading.partial import Partial, Version
from tests.integration.hub_server import HubServer, Repo
from tests.integration.loading import LOADED, MODEL, FileServer, Offered, drawn, post, verified
from tests.receiver import Receiver, receiver
from tests.running_server import RunningServer, eventually, start_server

DISK_BYTES = 2_000_000
LARGE = save({"weight": np.zeros(DISK_BYTES // 8, np.float32)})


@pytest.fixture(scope="module")
def lora(demo_manifest_path: Path) -> bytes:
    """Within the bound and the disk; draws as ``animie``."""
    return (demo_manifest_path.parent / "sd15_adapters/outlined.safetensors").read_bytes()


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with FileServer({}) as serving:
        yield serving


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    with receiver() as receiving:
        yield receiving


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a small file system, where this user may mount one."""
    root = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(root)]
    subprocess.run(mount, capture_output=True, check=False)
    yield root
    if root.is_mount():
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.fixture
def disk(weights: Path) -> Iterator[Path]:
    if not weights.is_mount():
        pytest.skip("this user may not mount a small disk")
    yield weights
    (weights / "fill").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def hub(lora: bytes) -> Iterator[HubServer]:
    large = {"large.safetensors": LARGE}
    with HubServer({"me/large": Repo(large), "me/lora": Repo({"lora.safetensors": lora})}) as serving:
        yield serving


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path, weights: Path, hub: HubServer
) -> Iterator[RunningServer]:
    """Loads at most 800 kB, into ``weights``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        running = start_server(
            tmp_path_factory.mktemp("server"),
            demo_manifest_path,
            weights=str(weights),
            preload="false",
            sync_wait_s="110",
            max_load_gb="0.0008",
            load_stalled_s="1",
        )
    yield running
    running.stop()


def fails(
    server: RunningServer,
    weights: Path,
    files: FileServer,
    hook: Receiver,
    name: str,
    origin: str | None = None,
) -> str:
    """Load ``name``; the reason why it fails, which verify_model, system_details and the webhook all tell."""
    fields: dict[str, Any] = {"model_type": "lora", "webhook": hook.url, "track_id": name}
    answer = post(server, "load_model", url=origin or f"{files.url}/{name}", model_id=name, **fields)
    assert answer["message"] == "model load started"
    head, _, reason = verified(server, name).partition(": loading failed: ")
    assert head == "Model id not found"
    told = eventually(lambda: [each.payload for each in hook.received if each.payload["track_id"] == name])
    assert (told[0]["status"], told[0]["message"]) == ("failed", f"Loading failed: {reason}")
    state = next(load for load in post(server, "system_details")["loads"] if load["model_id"] == name)
    assert (state["status"], state["message"]) == ("failed", reason)
    assert name not in {model["model_id"] for model in post(server, "get_all_models")["models"]}
    assert list(weights.glob("loaded/*")) == []
    assert drawn(server, MODEL)
    return reason


def loads_now(server: RunningServer, files: FileServer, name: str, origin: str = "") -> None:
    """Load ``name`` again, this time with success; then leave the server as it was."""
    post(server, "load_model", url=origin or f"{files.url}/{name}", model_id=name, model_type="lora")
    assert verified(server, name) == LOADED
    assert drawn(server, MODEL, lora_model=name) == drawn(server, MODEL, lora_model="animie")
    post(server, "delete_model", model_id=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("announced", Offered(LARGE, stops_after=0)),
        ("unannounced", Offered(LARGE, chunked=True, endless=True)),
    ],
)
def test_what_is_too_large_is_given_up_when_that_is_known(
    name: str, offered: Offered, server: RunningServer, weights: Path, files: FileServer, hook: Receiver,
    lora: bytes,
) -> None:  # fmt: skip
    """From the announced length before a byte of it comes; else at the bound."""
    files.files[name] = offered
    reason = fails(server, weights, files, hook, name)
    assert reason == "it is larger than 0.0008 GB, and this server loads no more at a time"
    assert list(weights.glob(".parts/*")) == []
    files.files[name] = Offered(lora)
    loads_now(server, files, name)


@pytest.mark.parametrize(
    ("name", "chunked", "reason"),
    [
        ("announced to a small disk", False, "it needs 0.8 MB more on the disk, and 0.1 MB are free"),
        ("sent to a small disk", True, "the weights folder cannot be written: No space left on device"),
    ],
)
def test_a_disk_that_is_too_small_is_named(
    name: str, chunked: bool, reason: str, server: RunningServer, disk: Path, files: FileServer,
    hook: Receiver, lora: bytes,
) -> None:  # fmt: skip
    name = name.replace(" ", "-")
    files.files[name] = Offered(lora, chunked=chunked)
    fill(disk, leaving=100_000)
    assert fails(server, disk, files, hook, name) == reason
    assert list(disk.glob(".parts/*")) == []
    (disk / "fill").unlink()
    loads_now(server, files, name)


def test_a_repository_that_is_too_large_is_refused(
    server: RunningServer, weights: Path, files: FileServer, hub: HubServer, hook: Receiver
) -> None:
    reason = fails(server, weights, files, hook, "large-repository", "me/large")
    assert reason == "it has 1.0 MB, and this server loads at most 0.0008 GB"
    assert hub.fetched() == []


def test_a_repository_that_the_disk_cannot_take_is_refused(
    server: RunningServer, disk: Path, files: FileServer, hook: Receiver
) -> None:
    fill(disk, leaving=100_000)
    reason = fails(server, disk, files, hook, "repository", "me/lora")
    assert reason == "me/lora needs 0.8 MB more, and 0.1 MB are free."
    (disk / "fill").unlink()
    loads_now(server, files, "repository", "me/lora")


def test_a_disk_that_is_full_from_the_start_refuses_at_once(
    server: RunningServer, disk: Path, files: FileServer, lora: bytes
) -> None:
    files.files["refused"] = Offered(lora)
    fill(disk)
    answer = post(server, "load_model", url=f"{files.url}/refused", model_id="refused")
    assert answer["message"] == "the weights folder cannot be written: No space left on device"
    assert "refused" not in {load["model_id"] for load in post(server, "system_details")["loads"]}
    assert drawn(server, MODEL)
    (disk / "fill").unlink()
    loads_now(server, files, "refused")


@pytest.mark.slow
def test_a_failure_that_cannot_be_recorded_is_told_all_the_same(
    server: RunningServer, disk: Path, files: FileServer, hook: Receiver, lora: bytes
) -> None:
    def filled() -> None:
        eventually(lambda: sum(part.stat().st_size for part in disk.glob(".parts/*")) >= 100_000 or None)
        fill(disk)

    # Without a mark it is not taken up again, which would be refused for want of room, but begun anew.
    files.files["unrecorded"] = Offered(lora, chunked=True, marked=False, stops_after=100_000, stopped=filled)
    reason = fails(server, disk, files, hook, "unrecorded")
    assert reason == "it could not be fetched: nothing came for 1 seconds"
    assert "unrecorded" in (disk / "loads.yaml").read_text()
    assert "problem: null" in (disk / "loads.yaml").read_text()
    (disk / "fill").unlink()
    files.files["unrecorded"] = Offered(lora)
    loads_now(server, files, "unrecorded")


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
def test_a_transfer_that_stalls_is_given_up_and_taken_up_again_by_the_next_load(
    chunked: bool, server: RunningServer, weights: Path, files: FileServer, hook: Receiver, lora: bytes
) -> None:
    name = f"stalls-{chunked}"
    files.files[name] = Offered(lora, chunked=chunked, stops_after=100_000)
    reason = fails(server, weights, files, hook, name)
    assert reason == "it could not be fetched: nothing came for 1 seconds"
    files.files[name] = Offered(lora, chunked=chunked)
    files.requests.clear()
    loads_now(server, files, name)
    assert files.requests == [(name, "bytes=100000-")]


def test_a_server_that_never_answers_is_given_up(
    server: RunningServer, weights: Path, files: FileServer, hook: Receiver, lora: bytes
) -> None:
    files.files["silent"] = Offered(lora, silent=True)
    reason = fails(server, weights, files, hook, "silent")
    assert reason == "it could not be fetched: nothing came for 1 seconds"
    files.files["silent"] = Offered(lora)
    loads_now(server, files, "silent")


def test_a_file_that_came_whole_before_a_crash_is_fetched_anew(
    server: RunningServer, weights: Path, files: FileServer, lora: bytes
) -> None:
    """Its server has nothing left to send."""
    files.files["whole"] = Offered(lora)
    partial = Partial(weights / ".parts", f"{files.url}/whole")
    partial.begin(Version(etag='"this one"', total=len(lora)))
    partial.path.write_bytes(lora)
    loads_now(server, files, "whole")


def fill(disk: Path, leaving: int = 0) -> None:
    """Leave so many bytes free."""
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(file.tell() - leaving)
