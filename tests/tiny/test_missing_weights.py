"""An engine some of whose weights are missing or damaged: it draws the rest, and all when they come."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.engine import process, watch
from pipelines.errors import CheckpointUnavailable, GenerationError, UnusableCheckpoint
from pipelines.messages import (
    Absences,
    Absent,
    Broken,
    Draw,
    Drawn,
    EngineConfig,
    Failed,
    Ready,
    Reload,
    Residency,
    Stop,
)
from pipelines.request import Lora, Request, TextToImage

SD15, SDXL = "sd15", "sdxl"


class Served:
    """An engine's program in a thread, and the other end of its pipe."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.events: list[Any] = []

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The next event that is wanted."""
        while self._connection.poll(60):
            event = self._connection.recv()
            self.events.append(event)
            assert not isinstance(event, Broken)
            if wanted(event):
                return event
        raise TimeoutError

    def seen(self, wanted: Callable[[Any], bool]) -> None:
        """Wait for an event that may have come already."""
        if not any(wanted(event) for event in self.events):
            self.until(wanted)

    def send(self, command: Any) -> None:
        self._connection.send(command)

    def absent(self, wanted: set[str]) -> tuple[Absent, ...]:
        """What is absent, once exactly these names are."""
        found = self.until(
            lambda event: isinstance(event, Absences) and {each.name for each in event.absences} == wanted
        )
        return found.absences

    def draw(self, request: Request, ticket_id: str = "t") -> GenerationError | None:
        """Draw a request; the error when it fails."""
        self.send(Draw(ticket_id, request))
        event = self.until(lambda event: isinstance(event, Drawn | Failed) and event.ticket_id == ticket_id)
        return event.error if isinstance(event, Failed) else None


@contextmanager
def serving(manifest: Path, **options: Any) -> Iterator[Served]:
    ends: tuple[Any, Any] = multiprocessing.Pipe()
    here, there = ends
    config = EngineConfig(
        device="cpu", manifest=manifest, weights=manifest.parent / "weights", budget_bytes=10**10,
        group_pixels=2**20, **options,
    )  # fmt: skip
    failures: list[BaseException] = []

    def run() -> None:
        try:
            process.serve(there, config)
        except BaseException as error:
            failures.append(error)
            there.send(Broken(repr(error)))

    thread = threading.Thread(target=run)
    thread.start()
    served = Served(here)
    try:
        yield served
    finally:
        here.send(Stop())
        thread.join(60)
        assert not failures


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.05)


def write(folder: Path, **sections: Any) -> Path:
    (folder / "weights.yaml").write_text(yaml.safe_dump(sections))
    return folder / "weights.yaml"


def pipeline(name: str = SD15, *, resident: bool = False, **parts: Any) -> dict[str, Any]:
    return {
        "family": name,
        "parts": {"pipeline": {"folder": name}, **parts},
        "dtype": "float32",
        "resident": resident,
    }


@pytest.fixture
def folder(random_manifest_path: Path, tmp_path: Path) -> Path:
    """A folder with small checkpoints of SD1.5 and SDXL, as copies."""
    for name in (SD15, SDXL):
        shutil.copytree(random_manifest_path.parent / name, tmp_path / name)
    return tmp_path


def boat(name: str = SD15, **more: Any) -> TextToImage:
    return TextToImage(
        pipeline=name, prompt="a boat", width=64, height=64, num_inference_steps=1, guidance_scale=1.0,
        seeds=(1,), **more,
    )  # fmt: skip


def test_a_start_with_nothing_here_is_ready_and_says_what_is_missing(tmp_path: Path):
    hub = {"family": "kolors", "parts": {"pipeline": {"hub": "me/kolors"}}, "resident": True}
    manifest = write(tmp_path, pipelines={"kolors": hub, SD15: pipeline(resident=True)})
    with serving(manifest) as served:
        missing = served.absent({"kolors", SD15})
        served.until(lambda event: isinstance(event, Ready))
        assert missing[0].remedy == "run `understudy weights pull kolors`"
        refusal = served.draw(boat("kolors"))
        assert isinstance(refusal, CheckpointUnavailable)
        assert "run `understudy weights pull kolors`" in str(refusal)


def test_what_is_pinned_is_loaded_when_its_files_appear(folder: Path):
    (folder / SD15).rename(folder / "aside")
    manifest = write(folder, pipelines={SD15: pipeline(resident=True), SDXL: pipeline(SDXL)})
    with serving(manifest) as served:
        served.absent({SD15})
        served.until(lambda event: isinstance(event, Ready))
        assert isinstance(served.draw(boat()), CheckpointUnavailable)
        assert served.draw(boat(SDXL)) is None
        (folder / "aside").rename(folder / SD15)
        served.absent(set())
        served.seen(lambda event: isinstance(event, Residency) and SD15 in event.resident)
        assert served.draw(boat()) is None


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def cut(name: str, less: int) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-less] if less else b"")

    return edit


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a file is cut off": cut("unet/diffusion_pytorch_model.safetensors", 100),
    "a file is empty": cut("vae/diffusion_pytorch_model.safetensors", 0),
    "a configuration is empty": cut("unet/config.json", 0),
    "a configuration is of another network": edited("unet/config.json", block_out_channels=[8, 8, 8]),
    "the index names no class": edited("model_index.json", unet=["diffusers", "NoSuchNetwork"]),
    "a tokenizer is missing": lambda folder: shutil.rmtree(folder / "tokenizer"),
    "a folder is missing": lambda folder: shutil.rmtree(folder / "unet"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_that_is_pinned_is_unavailable_alone(damage: str, folder: Path):
    whole = folder / "whole"
    shutil.copytree(folder / SD15, whole)
    DAMAGES[damage](folder / SD15)
    manifest = write(folder, pipelines={SD15: pipeline(resident=True), SDXL: pipeline(SDXL)})
    with serving(manifest) as served:
        (missing,) = served.absent({SD15})
        served.until(lambda event: isinstance(event, Ready))
        refusal = served.draw(boat())
        assert isinstance(refusal, CheckpointUnavailable)
        assert not isinstance(refusal, UnusableCheckpoint)
        assert "To mend it, put a whole folder" in str(refusal)
        assert missing.remedy in str(refusal)
        assert str(folder) not in str(refusal)
        assert served.draw(boat(SDXL)) is None
        # At no moment half of it: what is being taken away file by file may look new, and whole.
        (folder / SD15).rename(folder / "broken")
        whole.rename(folder / SD15)
        served.absent(set())
        assert served.draw(boat()) is None


def test_what_does_not_open_evicts_nothing_and_is_opened_once(folder: Path, caplog: pytest.LogCaptureFixture):
    edited("unet/config.json", block_out_channels=[8, 8, 8])(folder / SD15)
    manifest = write(folder, pipelines={SD15: pipeline(), SDXL: pipeline(SDXL)})
    with serving(manifest) as served:
        assert served.draw(boat(SDXL)) is None
        for number in range(3):
            assert isinstance(served.draw(boat(), f"t{number}"), CheckpointUnavailable)
        (said,) = [record for record in caplog.records if "is unavailable" in record.getMessage()]
        assert SD15 in said.getMessage()
        served.seen(lambda event: isinstance(event, Absences) and len(event.absences) == 1)
        assert [each.resident for each in served.events if isinstance(each, Residency)] == [(SDXL,)]


def test_a_missing_safety_checker_fails_only_who_wants_it_and_is_taken_when_it_comes(
    folder: Path, random_manifest_path: Path
):
    checked = pipeline(safety_checker={"folder": "checker"})
    with serving(write(folder, pipelines={SD15: checked})) as served:
        (missing,) = served.absent({SD15})
        assert missing.part == "safety_checker"
        assert served.draw(boat()) is None
        refusal = served.draw(boat(safety_checker=True))
        assert isinstance(refusal, CheckpointUnavailable)
        assert "the safety checker of sd15 is unavailable" in str(refusal)
        shutil.copytree(random_manifest_path.parent / "safety_checker", folder / "checker")
        served.absent(set())
        assert served.draw(boat(safety_checker=True)) is None


def test_a_missing_adapter_fails_only_who_wants_it(folder: Path, random_manifest_path: Path):
    lora = {"source": {"file": "mine.safetensors"}, "family": "sd15"}
    manifest = write(folder, pipelines={SD15: pipeline()}, loras={"mine": lora})
    with serving(manifest) as served:
        served.absent({"mine"})
        refusal = served.draw(boat(loras=(Lora(name="mine"),)))
        assert isinstance(refusal, CheckpointUnavailable)
        assert str(refusal).startswith("mine is unavailable")
        assert served.draw(boat()) is None
        shutil.copy(
            random_manifest_path.parent / "sd15_adapters/animie.safetensors", folder / "mine.safetensors"
        )
        served.absent(set())
        assert served.draw(boat(loras=(Lora(name="mine"),))) is None


@pytest.mark.parametrize("text", ["pipelines: [", "", "- a", "pipelines: {sd15: {family: nothing}}"])
def test_a_manifest_that_became_invalid_counts_as_it_was_before(text: str, folder: Path):
    manifest = write(folder, pipelines={SD15: pipeline()})
    before = manifest.read_text()
    with serving(manifest) as served:
        served.until(lambda event: isinstance(event, Ready))
        manifest.write_text(text)
        served.send(Reload("again"))
        assert served.draw(boat()) is None
    with serving(manifest, manifest_text=before) as served:  # an engine that was started anew
        assert served.draw(boat()) is None
