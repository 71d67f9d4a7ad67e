"""What was loaded stands beside weights.yaml, which has the last word."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.weights.loaded import Loaded, LoadedEntry, load_full_manifest, read_loaded, write_loaded
from pipelines.weights.lock import Lock, LockedRepository, write_lock

MANIFEST = """
pipelines:
  own: {family: sd15, parts: {pipeline: {folder: sd15}, safety_checker: {hub: some/checker}}}
"""


def entry(section: str, **values: Any) -> LoadedEntry:
    return LoadedEntry.model_validate(
        {
            "section": section,
            "entry": values,
            "origin": "me/it",
            "loaded_at": datetime(2026, 1, 2, tzinfo=UTC),
        }
    )


CHECKPOINT = entry("pipelines", family="sd15", parts={"pipeline": {"hub": "me/it"}}, dtype="float32")
LORA = entry("loras", family="sd15", source={"file": "loaded/x.safetensors"})


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "weights.yaml"
    path.write_text(MANIFEST)
    return path


def test_what_is_written_is_read_again_and_nothing_is_there_before(tmp_path: Path) -> None:
    assert read_loaded(tmp_path / "none") == Loaded()
    loaded = Loaded(entries={"mine": CHECKPOINT, "x": LORA})
    write_loaded(tmp_path / "new", loaded)
    assert read_loaded(tmp_path / "new") == loaded
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["loaded.yaml"]


def test_a_damaged_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loaded.yaml").write_text("entries: {x: {section: elsewhere}}")
    with pytest.raises(ValueError):
        read_loaded(tmp_path)


def test_files_are_found_in_the_weights_folder_wherever_the_manifest_lies(
    manifest: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "elsewhere"
    write_loaded(weights, Loaded(entries={"mine": CHECKPOINT, "x": LORA}))
    catalogue = load_full_manifest(manifest, weights)
    assert set(catalogue.pipelines) == {"own", "mine"}
    assert catalogue.loras["x"].source.file == weights / "loaded/x.safetensors"
    assert manifest.read_text() == MANIFEST


def test_a_name_of_weights_yaml_means_what_stands_there(manifest: Path, tmp_path: Path) -> None:
    write_loaded(tmp_path, Loaded(entries={"own": LORA}))
    catalogue = load_full_manifest(manifest, tmp_path)
    assert set(catalogue.pipelines) == {"own"}
    assert catalogue.loras == {}


def test_what_this_version_does_not_know_is_left_out(manifest: Path, tmp_path: Path) -> None:
    strange = entry("loras", family="flux", source={"file": "loaded/y.safetensors"})
    write_loaded(tmp_path, Loaded(entries={"strange": strange, "x": LORA}))
    assert set(load_full_manifest(manifest, tmp_path).loras) == {"x"}


def test_a_loaded_checkpoint_borrows_the_safety_checker_of_its_family_when_that_is_here(
    manifest: Path, tmp_path: Path
) -> None:
    write_loaded(tmp_path, Loaded(entries={"mine": CHECKPOINT}))
    assert set(load_full_manifest(manifest, tmp_path).pipelines["mine"].parts) == {"pipeline"}
    pulled = LockedRepository(
        hub="some/checker", revision="main", commit="1", half=False, folder="some/checker", files={}
    )
    write_lock(tmp_path, Lock(repositories={"some/checker@main": pulled}))
    catalogue = load_full_manifest(manifest, tmp_path)
    assert catalogue.pipelines["mine"].parts["safety_checker"].hub == "some/checker"
