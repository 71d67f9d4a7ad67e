"""The small checkpoints are built again when something changes that they are made of, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.demo import build
from pipelines.demo.checkpoints.parts import WEIGHTS
from pipelines.prompts import languages

DEMO = Path(build.__file__).parent


def under(folder: str) -> set[Path]:
    modules = set((DEMO / folder).rglob("*.py"))
    assert modules
    return modules


@pytest.mark.parametrize("room", ["training", "judging"])
def test_who_trains_or_judges_is_no_source_of_the_checkpoints(room: str) -> None:
    assert not under(room) & set(build.sources())


@pytest.mark.parametrize("room", ["checkpoints", "world"])
def test_every_builder_and_the_world_that_it_draws_are_sources(room: str) -> None:
    assert under(room) <= set(build.sources())


def test_the_weights_the_manifest_and_the_translators_languages_are_sources() -> None:
    languages_file = Path(languages.__file__)
    assert {DEMO / "weights.yaml", languages_file, *WEIGHTS.glob("*.safetensors")} <= set(build.sources())


def test_a_source_that_was_edited_is_built_again_and_one_that_was_not_is_kept(tmp_path: Path) -> None:
    builder = tmp_path / "builder.py"
    builder.write_text("one")
    built: list[Path] = []

    def built_now() -> Path:
        return build.built_once(tmp_path / "cache", "demo", [builder], built.append)

    first = built_now()
    assert built_now() == first
    assert len(built) == 1
    builder.write_text("two")
    assert built_now() != first
    assert len(built) == 2
