"""What commands write into loaded.yaml is taken up by a running server, and nobody's entry is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.weights.loaded import Loaded, LoadedEntry, change_loaded, load_full_manifest, read_loaded
from server.engines.dispatch import Dispatch
from server.loading.catalogue import Catalogue
from server.loading.changes import announce, is_served, take_up
from server.loading.usage import UsageRecord, read_usage
from server.settings import Settings

MANIFEST = "pipelines: {own: {family: sd15, parts: {pipeline: {folder: sd15}}}}\n"


def lora(file: str, *also: str, in_place: bool = True) -> LoadedEntry:
    return LoadedEntry(
        section="loras",
        entry={"family": "sd15", "source": {"file": file}, "also": list(also)},
        origin=file,
        loaded_at=datetime(2026, 1, 2, tzinfo=UTC),
        in_place=in_place,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "weights.yaml").write_text(MANIFEST)
    return Settings(manifest=tmp_path / "weights.yaml", weights=tmp_path / "weights", data=tmp_path)


def write(settings: Settings, **entries: LoadedEntry | None) -> None:
    def change(loaded: Loaded) -> Loaded:
        both = {**loaded.entries, **entries}
        return Loaded(entries={name: item for name, item in both.items() if item is not None})

    change_loaded(settings.weights, change)


class Engines:
    """Engines that record what they are asked, and what the catalogue offered at that moment."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.asked: list[tuple[str, set[str]]] = []

    async def retire(self, name: str) -> None:
        self.asked.append((f"retire {name}", set(self._catalogue.loaded())))

    async def reload(self) -> None:
        self.asked.append(("reload", set(self._catalogue.loaded())))


def taken_up(catalogue: Catalogue) -> Sequence[tuple[str, set[str]]]:
    engines = Engines(catalogue)
    asyncio.run(take_up(catalogue, cast(Dispatch, engines)))
    return engines.asked


def test_what_came_is_offered_when_the_engines_know_it(settings: Settings) -> None:
    catalogue = Catalogue(settings)
    write(settings, x=lora("/x.safetensors"))
    assert taken_up(catalogue) == [("reload", set())]
    assert set(catalogue.manifest.loras) == {"x"}
    assert taken_up(catalogue) == [], "nothing has changed since"


def test_what_left_is_offered_no_more_before_the_engines_forget_it(settings: Settings) -> None:
    write(settings, x=lora("/x.safetensors"), y=lora("/y.safetensors"))
    catalogue = Catalogue(settings)
    write(settings, x=None)
    assert taken_up(catalogue) == [("retire x", {"y"}), ("reload", {"y"})]


def test_a_name_that_means_another_file_now_is_retired_first(settings: Settings) -> None:
    write(settings, x=lora("/x.safetensors"))
    catalogue = Catalogue(settings)
    write(settings, x=lora("/other.safetensors"))
    assert [words for words, _ in taken_up(catalogue)] == ["retire x", "reload"]
    assert catalogue.manifest.loras["x"].source.file == Path("/other.safetensors")


def test_the_servers_own_changes_are_none_of_others(settings: Settings) -> None:
    catalogue = Catalogue(settings)
    catalogue.add("x", lora("/x.safetensors"))
    assert taken_up(catalogue) == []


def test_a_servers_change_keeps_what_a_command_wrote_meanwhile(settings: Settings) -> None:
    catalogue = Catalogue(settings)
    write(settings, theirs=lora("/theirs.safetensors"))
    catalogue.add("ours", lora("/ours.safetensors"))
    assert set(read_loaded(settings.weights).entries) == {"theirs", "ours"}
    taken_up(catalogue)
    assert set(catalogue.manifest.loras) == {"theirs", "ours"}
    catalogue.remove("ours")
    assert set(read_loaded(settings.weights).entries) == {"theirs"}


def test_a_damaged_record_changes_nothing(settings: Settings) -> None:
    write(settings, x=lora("/x.safetensors"))
    catalogue = Catalogue(settings)
    (settings.weights / "loaded.yaml").write_text("entries: [")
    with pytest.raises(ValueError, match="damaged"):
        taken_up(catalogue)
    assert set(catalogue.manifest.loras) == {"x"}


@pytest.mark.parametrize("where", ["elsewhere", "in the weights folder"])
def test_a_file_that_is_used_in_place_is_never_removed(
    settings: Settings, tmp_path: Path, where: str
) -> None:
    path = (tmp_path if where == "elsewhere" else settings.weights / "loaded") / "x.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody's")
    name = str(path) if where == "elsewhere" else "loaded/x.safetensors"
    write(settings, x=lora(name))
    catalogue = Catalogue(settings)
    write(settings, x=None)
    taken_up(catalogue)
    assert path.exists()


def test_a_file_that_was_brought_is_removed_with_its_entry(settings: Settings) -> None:
    path = settings.weights / "loaded/x.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"ours")
    write(settings, x=lora("loaded/x.safetensors", in_place=False))
    catalogue = Catalogue(settings)
    write(settings, x=None)
    taken_up(catalogue)
    assert not path.exists()


def test_two_processes_that_write_at_once_lose_nothing(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.test_loaded_changes import *\n"
        "settings = Settings(manifest=Path('x'), weights=Path(sys.argv[1]))\n"
        "for at in range(20): write(settings, **{f'{sys.argv[2]}{at}': lora('/x.safetensors')})\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(settings.weights), name]) for name in ("a", "b")
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert len(read_loaded(settings.weights).entries) == 40


def test_another_name_never_hides_a_name(settings: Settings) -> None:
    write(
        settings,
        a=lora("/a.safetensors", "b", "own", "shared", "only-a"),
        b=lora("/b.safetensors", "shared", "only-b"),
    )
    manifest = load_full_manifest(settings.manifest, settings.weights)
    assert {name: manifest.id_of(name) for name in ("b", "own", "shared", "only-a", "only-b")} == {
        "b": "b",
        "own": "own",
        "shared": "a",
        "only-a": "a",
        "only-b": "b",
    }


def test_a_command_sees_whether_a_server_draws_with_the_folder(settings: Settings) -> None:
    assert not is_served(settings.weights)
    with announce(settings.weights), announce(settings.weights):
        assert is_served(settings.weights)
    assert not is_served(settings.weights)


def test_uses_are_kept_over_a_restart_and_what_is_loaded_is_not(tmp_path: Path) -> None:
    UsageRecord(tmp_path).update(("a",), {"a": 1_000.0, "x": 2_000.0})
    assert read_usage(tmp_path).resident == ("a",)
    later = UsageRecord(tmp_path)
    later.update((), {"a": 3_000.0}, ends=True)
    usage: Any = read_usage(tmp_path)
    assert usage.resident == ()
    assert {name: when.timestamp() for name, when in usage.last_used.items()} == {"a": 3_000, "x": 2_000}
