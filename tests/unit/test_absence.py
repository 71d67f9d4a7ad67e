"""What weights.yaml names and is not here: each thing by itself, with the command that mends it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.messages import Absent
from pipelines.weights.absence import absent
from pipelines.weights.lock import LOCK_NAME, Lock, LockedFile, LockedRepository, write_lock
from pipelines.weights.manifest import Manifest, load_manifest

ROOT = Path(__file__).parents[2]

PULLED = {"unet/model.safetensors": b"12345678", "model_index.json": b"{}"}


def safetensors(numbers: int = 4) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * numbers)


def pull(weights: Path, hub: str, files: dict[str, bytes] = PULLED) -> None:
    """As `understudy weights pull` leaves it."""
    locked: dict[str, LockedFile] = {}
    for name, content in files.items():
        path = weights / hub / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        locked[name] = LockedFile(origin=name, upstream="", sha256="", size=len(content), mtime_ns=0)
    lock = Lock()
    lock.repositories[f"{hub}@main"] = LockedRepository(
        hub=hub, revision="main", commit="c", half=True, folder=hub, files=locked
    )
    write_lock(weights, lock)


def manifest(folder: Path, **sections: object) -> Manifest:
    return Manifest.model_validate({"path": folder / "weights.yaml", "pipelines": {}, **sections})


def of_hub(folder: Path) -> Manifest:
    return manifest(folder, pipelines={"mine": {"family": "sd15", "parts": {"pipeline": {"hub": "me/mine"}}}})


def of_file(folder: Path) -> Manifest:
    entry = {"family": "sd15", "source": {"file": "mine.safetensors"}}
    (folder / "mine.safetensors").write_bytes(safetensors())
    return manifest(folder, loras={"mine": entry})


def of_folder(folder: Path) -> Manifest:
    (folder / "mine/vae").mkdir(parents=True)
    (folder / "mine/vae/model.safetensors").write_bytes(safetensors())
    (folder / "mine/vae/config.json").write_text("{}")
    return manifest(folder, pipelines={"mine": {"family": "sd15", "parts": {"pipeline": {"folder": "mine"}}}})


def of_load(folder: Path) -> Manifest:
    """One that was loaded while the server ran; the manifest of the moment names it by its whole path."""
    path = folder / "loaded/mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(safetensors())
    lock = Lock()
    lock.downloads["loaded/mine.safetensors"] = LockedFile(
        origin="https://example.com/mine", upstream="", sha256="", size=len(safetensors()), mtime_ns=0
    )
    write_lock(folder, lock)
    return manifest(folder, loras={"mine": {"family": "sd15", "source": {"file": str(path)}}})


def only(found: list[Absent]) -> Absent:
    (one,) = found
    return one


def test_with_nothing_pulled_all_of_the_shipped_manifest_is_missing_each_with_its_command(tmp_path: Path):
    shipped = load_manifest(ROOT / "weights.yaml")
    found = {each.name: each for each in absent(shipped, tmp_path)}
    assert found.keys() == {*shipped.openable(), *(name for name, _ in shipped.adapters())}
    for name, each in found.items():
        assert each.remedy.startswith(f"run `understudy weights pull {name}`")
        assert each.part is None
    assert "runwayml/stable-diffusion-v1-5" in found["stable-diffusion-v1-5"].also
    assert "HF_TOKEN" in found["sd3-medium-pose"].remedy


def test_what_was_pulled_is_here(tmp_path: Path):
    pull(tmp_path, "me/mine")
    assert absent(of_hub(tmp_path), tmp_path) == []


def damaged_lock(folder: Path) -> None:
    (folder / LOCK_NAME).write_text('{"version": 1, "repositories": ')


def lock_of_another_shape(folder: Path) -> None:
    (folder / LOCK_NAME).write_text("[]")


def cut(name: str, size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return change


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


HUB_DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "lock cut off": (
        damaged_lock,
        "is damaged",
        f"delete {LOCK_NAME} and run `understudy weights pull mine`",
    ),
    "lock is a list": (lock_of_another_shape, "is damaged", f"delete {LOCK_NAME}"),
    "file missing": (
        gone("me/mine/unet/model.safetensors"),
        "files of its weights are missing",
        "weights pull",
    ),
    "file empty": (cut("me/mine/unet/model.safetensors", 0), "not the ones that were pulled", "weights pull"),
    "file short": (cut("me/mine/unet/model.safetensors", 7), "not the ones that were pulled", "weights pull"),
    "lock gone": (gone(LOCK_NAME), "its weights are not here", "weights pull"),
}


@pytest.mark.parametrize("damage", HUB_DAMAGES)
def test_whatever_became_of_what_was_pulled_it_is_named_with_its_command(damage: str, tmp_path: Path):
    pull(tmp_path, "me/mine")
    change, reason, remedy = HUB_DAMAGES[damage]
    change(tmp_path)
    found = only(absent(of_hub(tmp_path), tmp_path))
    assert reason in found.reason
    assert remedy in found.remedy


def test_files_that_were_never_pulled_of_a_repository_that_was(tmp_path: Path):
    """Two entries share a repository; one of them came into weights.yaml after the pull."""
    pull(tmp_path, "me/mine", {"a.safetensors": safetensors()})
    entries = {
        name: {"family": "sd15", "source": {"hub": "me/mine", "files": [f"{name}.safetensors"]}}
        for name in "ab"
    }
    assert only(absent(manifest(tmp_path, loras=entries), tmp_path)).name == "b"


LOCAL_DAMAGES: dict[str, tuple[Callable[[Path], Manifest], Callable[[Path], None], str, str]] = {
    "file missing": (of_file, gone("mine.safetensors"), "its file is not there", "put a whole file"),
    "file empty": (of_file, cut("mine.safetensors", 0), "is empty", "put a whole file"),
    "file cut off": (of_file, cut("mine.safetensors", 80), "cut off", "put a whole file"),
    "folder's file cut off": (of_folder, cut("mine/vae/model.safetensors", 80), "cut off", "a whole folder"),
    "folder's config empty": (of_folder, cut("mine/vae/config.json", 0), "is empty", "a whole folder"),
    "loaded missing": (of_load, gone("loaded/mine.safetensors"), "not there", "call delete_model for mine"),
    "loaded cut off": (of_load, cut("loaded/mine.safetensors", 80), "not the one that", "delete_model"),
    "loaded, lock gone": (of_load, gone(LOCK_NAME), "not among those", "delete_model"),
    "loaded, lock damaged": (of_load, damaged_lock, "is damaged", "delete_model"),
}


@pytest.mark.parametrize("damage", LOCAL_DAMAGES)
def test_whatever_became_of_a_local_file_it_is_named_without_its_path(damage: str, tmp_path: Path):
    make, change, reason, remedy = LOCAL_DAMAGES[damage]
    described = make(tmp_path)
    assert absent(described, tmp_path) == []
    change(tmp_path)
    found = only(absent(described, tmp_path))
    assert reason in found.reason
    assert remedy in found.remedy
    assert str(tmp_path) not in str(found.error())


def test_a_folder_that_is_not_there(tmp_path: Path):
    described = manifest(
        tmp_path, pipelines={"mine": {"family": "sd15", "parts": {"pipeline": {"folder": "nowhere"}}}}
    )
    assert only(absent(described, tmp_path)).reason == "its folder is not there"


def test_a_safety_checker_or_an_annotator_is_missing_alone(tmp_path: Path):
    pull(tmp_path, "me/mine")
    parts = {"safety_checker": {"hub": "me/checker"}, "pipeline": {"hub": "me/mine"}}
    steering = {"family": "sd15", "source": {"hub": "me/mine"}, "preprocessor": "hed"}
    described = manifest(
        tmp_path,
        pipelines={"mine": {"family": "sd15", "parts": parts}},
        controlnets={"hed": {**steering, "annotator": {"hub": "me/annotators"}}},
    )
    found = {(each.name, each.part) for each in absent(described, tmp_path)}
    assert found == {("mine", "safety_checker"), ("hed", "annotator")}


def test_what_is_missing_as_a_whole_is_said_once(tmp_path: Path):
    parts = {
        "safety_checker": {"hub": "me/checker"},
        "pipeline": {"hub": "me/mine"},
        "vae": {"hub": "me/vae"},
    }
    described = manifest(tmp_path, pipelines={"mine": {"family": "sd15", "parts": parts}})
    assert only(absent(described, tmp_path)).part is None


def test_a_dummy_is_always_here(tmp_path: Path):
    parts = {"pipeline": {"dummy": "sdxl"}}
    assert absent(manifest(tmp_path, pipelines={"d": {"family": "sdxl", "parts": parts}}), tmp_path) == []
