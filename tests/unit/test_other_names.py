"""`also:` in weights.yaml: other names of an entry, each claimed once, known wherever a name is said."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.weights.loaded import Loaded, LoadedEntry, with_loaded
from pipelines.weights.manifest import Manifest, load_manifest
from server.__main__ import main

SOURCE = {"file": "it.safetensors"}


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"loras": {"a": {"also": ["c"]}, "b": {"also": ["c"]}}}, "c: claimed by a and by b"),
        ({"loras": {"a": {"also": ["c"]}}, "vaes": {"b": {"also": ["c"]}}}, "c: claimed by a and by b"),
        ({"loras": {"a": {"also": ["c", "c"]}}}, "c: claimed by a and by a"),
        ({"loras": {"a": {"also": ["b"]}, "b": {}}}, "b is the name of an entry"),
        ({"loras": {"a": {"also": ["a"]}}}, "a is the name of an entry"),
        ({"embeddings": {"a": {"also": ["b"]}}, "controlnets": {"b": {}}}, "b is the name of an entry"),
        ({"loras": {"a": {"also": ["b,c"]}}}, "'b,c' is no name"),
        ({"loras": {"a": {"also": [" b"]}}}, "' b' is no name"),
        ({"loras": {"a": {"also": [""]}}}, "'' is no name"),
        ({"loras": {"a": {"also": ["b" * 129]}}}, "is no name"),
    ],
)
def test_two_entries_cannot_claim_one_name(sections: dict[str, dict[str, Any]], problem: str):
    written = {
        section: {name: {"family": "sd15", "source": SOURCE, **entry} for name, entry in entries.items()}
        for section, entries in sections.items()
    }
    with pytest.raises(ValidationError, match=re.escape(problem)):
        Manifest.model_validate({"pipelines": {}, **written})


def test_another_name_is_that_of_its_entry_in_every_section():
    adapter = {"family": "sd15", "source": SOURCE}
    manifest = Manifest.model_validate(
        {
            "pipelines": {"p": {"family": "sd15", "parts": {"pipeline": SOURCE}, "also": ["P 1.5", "o/p"]}},
            "loras": {"l": {**adapter, "also": ["o/l"]}},
            "embeddings": {"e": {**adapter, "also": ["o/e"]}},
            "vaes": {"v": {**adapter, "also": ["o/v"]}},
            "controlnets": {"c": {**adapter, "also": ["o/c"]}},
            "upscalers": {"u": {"source": SOURCE, "also": ["o/u"]}},
            "face_restorers": {"f": {"source": SOURCE, "also": ["o/f"]}},
        }
    )
    assert manifest.id_of("P 1.5") == "p"
    assert [manifest.id_of(f"o/{name}") for name in "plevcuf"] == list("plevcuf")
    assert [manifest.id_of(name) for name in ("p", "x", "")] == ["p", "x", ""]


def test_what_was_loaded_under_a_name_that_weights_yaml_now_gives_another_entry_is_left_out(tmp_path: Path):
    manifest = Manifest.model_validate(
        {"pipelines": {}, "loras": {"a": {"family": "sd15", "source": SOURCE, "also": ["mine"]}}}
    )
    entry = {"family": "sd15", "source": {"file": "loaded/mine.safetensors"}}
    item = LoadedEntry(section="loras", entry=entry, origin="me/it", loaded_at=datetime.now(UTC))
    assert with_loaded(manifest, Loaded(entries={"mine": item}), tmp_path).loras.keys() == {"a"}


def test_the_shipped_manifest_has_the_name_that_the_vendors_answer_shows():
    manifest = load_manifest(Path(__file__).parents[2] / "weights.yaml")
    assert manifest.id_of("runwayml/stable-diffusion-v1-5") == "stable-diffusion-v1-5"
    assert manifest.id_of("stabilityai/stable-diffusion-xl-base-1.0") == "sdxl"
    assert manifest.id_of("ultra_resolution") == "RealESRGAN_x4plus"


def test_weights_are_pulled_by_another_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    written = {"pipelines": {}, "loras": {"l": {"family": "sd15", "source": SOURCE, "also": ["o/l"]}}}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(written))
    where = ("--manifest", str(tmp_path / "weights.yaml"), "--weights", str(tmp_path / "weights"))
    for name, status in (("o/l", 0), ("o/nothing", 2)):
        assert main(["weights", "pull", name, *where]) == status
    said = capsys.readouterr()
    assert said.out == "Nothing of this comes from the hub.\n"
    assert "not in the manifest: o/nothing" in said.err


def test_the_list_of_weights_shows_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    written = {
        "pipelines": {"sd": {"family": "sd15", "parts": {"pipeline": SOURCE}, "also": ["o/sd", "SD 1.5"]}},
        "loras": {"l": {"family": "sd15", "source": SOURCE, "license": "MIT", "also": ["o/l"]}},
        "upscalers": {"u": {"source": SOURCE, "also": ["o/u"]}},
    }
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(written))
    where = ("--manifest", str(tmp_path / "weights.yaml"), "--weights", str(tmp_path / "weights"))
    assert main(["weights", "list", *where]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["NAME"].endswith("ALSO")
    assert lines["sd"].endswith("  o/sd, SD 1.5")
    assert lines["l"].endswith("MIT      o/l")
    assert lines["u"].endswith("  o/u")
