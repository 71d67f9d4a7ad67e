"""The small checkpoints are built again when something changes that they are made of, and only then."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


class Killed(BaseException):
    """What a builder raises that is stopped in the middle."""


def writing(name: str, text: str, log: list[str]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        log.append(name)
        (folder / name).mkdir()
        (folder / name / "weights").write_text(text)

    return build


def test_each_checkpoint_is_there_when_its_name_is_said_and_the_next_is_not_begun(tmp_path: Path) -> None:
    log: list[str] = []
    built = build.build_missing(tmp_path, {name: writing(name, name, log) for name in ("first", "second")})
    assert next(built) == "first"
    assert (tmp_path / "first" / "weights").read_text() == "first"
    assert log == ["first"]
    assert [*built] == ["second"]


def test_a_checkpoint_shows_only_when_it_is_complete(tmp_path: Path) -> None:
    def build_slowly(folder: Path) -> None:
        (folder / "slow").mkdir()
        assert not (tmp_path / "slow").exists()
        (folder / "slow" / "weights").write_text("whole")

    assert [*build.build_missing(tmp_path, {"slow": build_slowly})] == ["slow"]
    assert (tmp_path / "slow" / "weights").read_text() == "whole"


def test_a_build_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    log: list[str] = []

    def killed(folder: Path) -> None:
        (folder / "second").mkdir()
        raise Killed

    stopped = build.build_missing(tmp_path, {"first": writing("first", "1", log), "second": killed})
    assert next(stopped) == "first"
    with pytest.raises(Killed):
        next(stopped)
    again = {"first": writing("first", "1", log), "second": writing("second", "2", log)}
    assert [*build.build_missing(tmp_path, again)] == ["first", "second"]
    assert log == ["first", "second"]
    assert (tmp_path / "second" / "weights").read_text() == "2"


@pytest.mark.parametrize("left", ["second", ".aside-killed"])
def test_what_a_killed_process_left_is_swept_away(tmp_path: Path, left: str) -> None:
    log: list[str] = []
    assert [*build.build_missing(tmp_path, {"first": writing("first", "1", log)})] == ["first"]
    (tmp_path / left).mkdir()
    (tmp_path / left / "weights").write_text("half")
    both = {name: writing(name, name, log) for name in ("first", "second")}
    assert [*build.build_missing(tmp_path, both)] == ["first", "second"]
    assert (tmp_path / "second" / "weights").read_text() == "second"
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", ".built", ".lock"}


def test_a_builder_finds_what_earlier_ones_have_written_and_leaves_it(tmp_path: Path) -> None:
    def reading(folder: Path) -> None:
        (folder / "copy").write_text((folder / "first" / "weights").read_text())

    assert [*build.build_missing(tmp_path, {"first": writing("first", "1", []), "second": reading})]
    assert (tmp_path / "copy").read_text() == "1"
    assert not (tmp_path / "first").is_symlink()


def test_two_that_build_at_the_same_time_build_each_checkpoint_once(tmp_path: Path) -> None:
    log: list[str] = []
    work = {name: writing(name, name, log) for name in ("first", "second")}
    first = build.build_missing(tmp_path, work)
    assert next(first) == "first"
    other: list[str] = []
    waiting = threading.Thread(target=lambda: other.extend(build.build_missing(tmp_path, work)))
    waiting.start()
    assert [*first] == ["second"]
    waiting.join(60)
    assert other == ["first", "second"]
    assert log == ["first", "second"]


def test_the_manifest_is_there_before_anything_is_built(tmp_path: Path) -> None:
    folder = build.place(tmp_path)
    assert (folder / "weights.yaml").read_bytes() == (DEMO / "weights.yaml").read_bytes()
    assert build.place(tmp_path) == folder


def test_what_the_first_picture_needs_is_built_first() -> None:
    assert [*build.builders()][:2] == ["sd15", "safety_checker"]
