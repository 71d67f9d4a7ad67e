"""A folder of checkpoints and adapters, looked at and recorded so that they are drawn with where they lie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pipelines
from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import LOCAL_SECTIONS, LocalKind
from pipelines.weights.loaded import LOADED_FOLDER, Loaded, LoadedEntry, change_loaded, names, read_loaded
from pipelines.weights.lock import read_lock
from pipelines.weights.manifest import Manifest
from server.loading.local_files import LocalModel, Look, PerhapsImageNetwork
from server.loading.model_folders import Candidate, Walk, walk
from server.loading.model_names import free_name, other_names

_ROOT = Path(pipelines.__path__[0]).parent
"""The folder in which a process of its own finds the packages of this one."""

_ORDER = tuple(LOCAL_SECTIONS)
"""The order of kinds in which names are given: a checkpoint keeps the name that a LoRA has, too."""


@dataclass(slots=True)
class Found:
    """What was found at one place.

    Attributes:
        model: what it is; None for what cannot be drawn with.
        problem: why it cannot be drawn with.
        name: the name under which it is drawn with.
        is_new: whether no earlier scan found it.
        taken: the name that it would have had, if something else did not have it; else empty.
        undecided: whether it may be an upscaler or face restorer, which only a process with torch can tell.
    """

    candidate: Candidate
    model: LocalModel | None = None
    problem: str = ""
    name: str = ""
    is_new: bool = True
    taken: str = ""
    undecided: bool = False


@dataclass(slots=True)
class Scan:
    """The result of a scan.

    Attributes:
        found: all that may be drawn with, in alphabetical order of paths.
        gone: names and paths of what earlier scans found below this folder, and is not there any more.
    """

    root: Path
    walked: Walk
    found: list[Found] = field(default_factory=list[Found])
    gone: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def usable(self) -> list[Found]:
        return [each for each in self.found if each.model is not None]


class NothingThere(Exception):
    """A folder has nothing where much was before; ``str(error)`` says what to do about it."""


def look_through(
    root: Path, look: Look, weights: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Scan:
    """Look at everything below a folder; nothing is recorded. Blocking.

    Args:
        root: the folder, or one of ComfyUI's files that name folders.
        progress: called with how many files were looked at, and how many there are.
    Raises:
        ValueError: the root names no folders.
        OSError: the root cannot be read.
    """
    root = root.absolute()
    scan = Scan(root, walk(root, _own_folders(weights)))
    candidates = scan.walked.candidates
    for at, candidate in enumerate(candidates):
        progress(at, len(candidates))
        scan.found.append(look_at(candidate, look))
    decide_image_networks(scan.found, look)
    progress(len(candidates), len(candidates))
    return scan


def look_at(candidate: Candidate, look: Look) -> Found:
    """Look at one file or folder, as far as this process can."""
    try:
        return Found(candidate, look.at(candidate))
    except PerhapsImageNetwork as error:
        return Found(candidate, problem=str(error), undecided=True)
    except Unrecognised as error:
        return Found(candidate, problem=str(error))
    except OSError as error:
        return Found(candidate, problem=f"it cannot be read: {error.strerror}")


def decide_image_networks(found: Iterable[Found], look: Look) -> None:
    """Ask a process with torch which of the undecided are upscalers and face restorers, if there are some."""
    perhaps = [each for each in found if each.undecided]
    if not perhaps:
        return
    answers = _image_networks([each.candidate.path for each in perhaps])
    for each in perhaps:
        each.undecided = False
        said = answers.get(str(each.candidate.path))
        if said is None:
            each.problem += "; whether it is an upscaler cannot be told without what draws (torch, spandrel)"
            continue
        try:
            each.model = look.image_network(each.candidate, said)
            each.problem = ""
        except Unrecognised as error:
            if each.candidate.expected in ("upscaler", "face_restorer") or "upscaler" in each.problem:
                each.problem = str(error)


def _image_networks(paths: list[Path]) -> dict[str, Mapping[str, str]]:
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.checkpoints.image_network_process"],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {line["path"]: line for line in lines}


def record(
    scan: Scan, own: Manifest, weights: Path, *, dry_run: bool = False, forget_all: bool = False
) -> None:
    """Give names to what was found, and write all of it into loaded.yaml at once.

    What an earlier scan found keeps its name. What is not there any more is forgotten.

    Args:
        own: weights.yaml, whose names stay its own.
        dry_run: write nothing; names are those that would be given.
        forget_all: forget also everything, where the folder has nothing any more.
    Raises:
        NothingThere: the folder has nothing any more.
        OSError: the weights folder cannot be written.
    """

    def change(loaded: Loaded) -> Loaded:
        return _merged(scan, loaded, own, weights, forget_all=forget_all)

    if dry_run:
        change(read_loaded(weights))
    else:
        change_loaded(weights, change)


def _merged(scan: Scan, loaded: Loaded, own: Manifest, weights: Path, *, forget_all: bool) -> Loaded:
    known = {
        _identity(weights / path): name
        for name, item in loaded.entries.items()
        if (path := item.source.file or item.source.folder) is not None
    }
    entries = dict(loaded.entries)
    taken = {*names(own), *entries}
    now = datetime.now(UTC)
    root = str(scan.root)
    for found in _in_order_of_names(scan.usable):
        assert found.model is not None
        name = known.get(_identity(found.candidate.path))
        found.is_new = name is None
        found.name = name or free_name(found.candidate, taken.__contains__)
        preferred = free_name(found.candidate, lambda _: False)
        found.taken = "" if found.name == preferred else preferred
        before = entries.get(found.name)
        if before is not None and not before.in_place:
            continue  # it was brought here, and lies in the folder that is scanned
        taken.add(found.name)
        entries[found.name] = local_entry(
            found,
            loaded_at=now if before is None else before.loaded_at,
            scanned=root if before is None or before.scanned else None,
        )
    there = {_identity(found.candidate.path) for found in scan.usable}
    for name, item in loaded.entries.items():
        path = item.source.file or item.source.folder
        if item.scanned is None or path is None or _identity(path) in there:
            continue
        if item.scanned == root or path.is_relative_to(scan.root):
            scan.gone[name] = str(path)
            del entries[name]
    if scan.gone and not scan.found and not forget_all:
        raise NothingThere(
            f"{scan.root} has nothing any more of the {len(scan.gone)} things that were found there: is its"
            " disk mounted? To forget them all, scan again with --forget"
        )
    return Loaded(entries=entries)


def local_entry(found: Found, *, loaded_at: datetime, scanned: str | None) -> LoadedEntry:
    """The record of what is used where it lies."""
    assert found.model is not None
    model = found.model
    return LoadedEntry(
        section=LOCAL_SECTIONS[model.kind],
        entry={**model.entry, "also": other_names(found.candidate, model.title, found.name)},
        origin=str(found.candidate.path),
        loaded_at=loaded_at,
        warning=model.warning,
        in_place=True,
        scanned=scanned,
    )


def kind_of(item: LoadedEntry) -> LocalKind:
    """The kind of an entry, by its section."""
    return next(kind for kind, section in LOCAL_SECTIONS.items() if section == item.section)


def _in_order_of_names(found: Iterable[Found]) -> list[Found]:
    """Those that get their name first: by kind, then by how deep they lie, then by the alphabet."""

    def key(each: Found) -> tuple[int, int, str, str]:
        assert each.model is not None
        within = each.candidate.within
        return _ORDER.index(each.model.kind), within.count("/"), within.lower(), within

    return sorted(found, key=key)


def _own_folders(weights: Path) -> frozenset[Path]:
    """The folders of what was brought into the weights folder, which is drawn with anyway."""
    weights = weights.absolute()
    pulled = {weights / repository.folder for repository in read_lock(weights).repositories.values()}
    return frozenset({weights / LOADED_FOLDER, *pulled})


def _identity(path: Path) -> Path:
    """What two paths to the same file have in common."""
    return path.resolve()
