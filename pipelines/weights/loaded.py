"""loaded.yaml: what was loaded or added beside weights.yaml, or is used where it lies. Torch-free.

It lies in the weights folder, with most of the files that it names: there it can always be written, also
where weights.yaml is mounted read-only, and whoever moves the weights takes it along.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from pipelines.weights.alternatives import with_free_alternatives
from pipelines.weights.atomic import write_atomically
from pipelines.weights.entries import AdapterEntry, ImageNetworkEntry, PipelineEntry, Source
from pipelines.weights.kinds import LocalSection
from pipelines.weights.lock import LockedRepository, read_lock
from pipelines.weights.manifest import Manifest, load_manifest, parse_manifest

log = logging.getLogger(__name__)

LOADED_NAME = "loaded.yaml"

LOADED_FOLDER = "loaded"
"""The folder below the weights folder that has the single files that were loaded, named as in requests."""

_GUARD = ".loaded"
"""The file whose lock is held by whoever changes loaded.yaml."""

# The same as PyYAML's own ones, and ten times as fast where libyaml is there: a folder may have thousands.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_BORROWED_PART = "safety_checker"
"""The part of a loaded checkpoint that is taken from a checkpoint of its family in weights.yaml."""


class LoadedEntry(BaseModel):
    """A checkpoint, adapter or other network that was loaded, or is used where it lies.

    Attributes:
        section: the section of weights.yaml in which ``entry`` would stand.
        entry: the entry in the words of weights.yaml; its file is named relative to the weights folder.
        origin: the URL or repository that it was loaded from, or the path at which it lies.
        warning: what is not quite as its caller may expect; None where all is.
        in_place: whether its file is somebody else's: it was not brought here, and is never removed.
        scanned: the folder whose scan found it; None where it was loaded, or added by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: LocalSection
    entry: dict[str, Any]
    origin: str
    loaded_at: datetime
    warning: str | None = None
    in_place: bool = False
    scanned: str | None = None

    @property
    def source(self) -> Source:
        """The source of its weights; a file is named relative to the weights folder."""
        return Source.model_validate(self.entry.get("source") or self.entry["parts"]["pipeline"])


class Loaded(BaseModel):
    """All that loaded.yaml says; ``entries`` by the name under which they are drawn with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: dict[str, LoadedEntry] = Field(default_factory=dict)


def read_loaded(weights: Path) -> Loaded:
    """Read what was loaded into a weights folder; a file that is not there yet has no entries.

    Raises:
        ValueError: the file is damaged.
    """
    path = weights / LOADED_NAME
    if not path.exists():
        return Loaded()
    try:
        return Loaded.model_validate(yaml.load(path.read_text(), _Loader) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is damaged") from error


def write_loaded(weights: Path, loaded: Loaded) -> None:
    """Replace the record of what was loaded; the weights folder is made where there is none."""
    weights.mkdir(parents=True, exist_ok=True)
    head = "# Written by load_model, delete_model and `understudy models`; in the words of weights.yaml.\n"
    content = loaded.model_dump(mode="json", exclude_defaults=True)
    entries = yaml.dump({"entries": {}} | content, Dumper=_Dumper, allow_unicode=True)
    write_atomically(weights / LOADED_NAME, head + entries)


def change_loaded(weights: Path, change: Callable[[Loaded], Loaded]) -> Loaded:
    """Change the record of what was loaded; nobody else changes it between the reading and the writing.

    Raises:
        ValueError: the record is damaged.
        OSError: the weights folder cannot be written.
    """
    weights.mkdir(parents=True, exist_ok=True)
    with (weights / _GUARD).open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        before = read_loaded(weights)
        after = change(before)
        if after != before:
            write_loaded(weights, after)
        return after


def load_full_manifest(manifest: Path, weights: Path) -> Manifest:
    """Read weights.yaml together with what was loaded since.

    Raises:
        pydantic.ValidationError: weights.yaml is not valid.
        ValueError: loaded.yaml is damaged.
    """
    return with_loaded(load_manifest(manifest), read_loaded(weights), weights)


class ManifestReader:
    """Reads weights.yaml and loaded.yaml again and again; one that became invalid counts as it was before."""

    def __init__(self, manifest: Path, weights: Path, text: str | None = None) -> None:
        """
        Args:
            text: what weights.yaml said when it was valid last; None: reading an invalid one at first raises.
        """
        self._path = manifest
        self._weights = weights
        self._own = None if text is None else parse_manifest(text, manifest)
        self._loaded = Loaded()

    def read(self) -> Manifest:
        """The manifest of the moment; the log says which file was left out.

        Raises:
            ValueError, OSError, yaml.YAMLError: weights.yaml is not valid and never was.
        """
        try:
            self._own = load_manifest(self._path)
        except (ValueError, OSError, yaml.YAMLError) as error:
            if self._own is None:
                raise
            log.error("%s is not valid any more, and counts as it was before: %s", self._path.name, error)
        try:
            self._loaded = read_loaded(self._weights)
        except (ValueError, OSError, yaml.YAMLError) as error:
            log.error("%s is damaged, and counts as it was before: %s", LOADED_NAME, error)
        return with_loaded(self._own, self._loaded, self._weights)


def with_loaded(manifest: Manifest, loaded: Loaded, weights: Path) -> Manifest:
    """A manifest with the loaded entries, too; a name that both have means the manifest's own entry.

    A free alternative that was pulled stands in the place of what it is the alternative of.
    """
    pulled = cache(lambda: read_lock(weights).repositories)
    if manifest.pose_detector and all(_was_pulled(each, pulled) for each in manifest.pose_detector.sources):
        manifest = with_free_alternatives(manifest)
    own = set(names(manifest))
    taken = own | loaded.entries.keys()
    for name, item in loaded.entries.items():
        if name in own:
            log.warning("%s stands in weights.yaml now; what was loaded under this name is left out", name)
            continue
        try:
            entry = parse(item.section, name, item.entry, weights)
        except ValueError as error:
            log.error("%s was loaded, but is of no use to this version: %s", name, error)
            continue
        # Another name is given to the first that wants it, and never hides what is called so.
        also = tuple(other for other in dict.fromkeys(entry.also) if other not in taken)
        taken |= set(also)
        entry = entry.model_copy(update={"also": also})
        if isinstance(entry, PipelineEntry):
            entry = _with_safety_checker(entry, manifest, pulled)
        manifest = manifest.with_entry(item.section, name, entry)
    return manifest


def parse(
    section: LocalSection, name: str, entry: Mapping[str, Any], weights: Path
) -> PipelineEntry | ImageNetworkEntry | AdapterEntry:
    """Validate an entry of weights.yaml that was written by a load, and make its file's path absolute.

    Raises:
        pydantic.ValidationError: this version does not know such entries.
    """
    written = _absolute(entry, weights.absolute())
    manifest = Manifest.model_validate({"pipelines": {}, section: {name: written}})
    parsed: PipelineEntry | ImageNetworkEntry | AdapterEntry = getattr(manifest, section)[name]
    return parsed if isinstance(parsed, AdapterEntry) else parsed.with_local_sizes(weights)


def names(manifest: Manifest) -> Iterator[str]:
    """Every name of everything that a manifest has, in all its sections."""
    for name, entry in manifest.named():
        yield name
        yield from entry.also


def _absolute(entry: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """An entry whose files and folders are named by absolute paths, at whatever depth."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, dict):
            found[key] = _absolute(cast("dict[str, Any]", value), weights)
        else:
            found[key] = str(weights / value) if key in ("file", "folder") else value
    return found


def _with_safety_checker(
    entry: PipelineEntry, manifest: Manifest, pulled: Callable[[], Mapping[str, LockedRepository]]
) -> PipelineEntry:
    """A loaded checkpoint with the safety checker that another one of its family has and that is here."""
    for other in manifest.pipelines.values():
        checker = other.parts.get(_BORROWED_PART)
        if other.family == entry.family and checker is not None and _is_here(checker, pulled):
            return entry.model_copy(update={"parts": {**entry.parts, _BORROWED_PART: checker}})
    return entry


def _is_here(source: Source, pulled: Callable[[], Mapping[str, LockedRepository]]) -> bool:
    """Whether a source is local, or was pulled."""
    return source.hub is None or _was_pulled(source, pulled)


def _was_pulled(source: Source, pulled: Callable[[], Mapping[str, LockedRepository]]) -> bool:
    try:
        return f"{source.hub}@{source.revision}" in pulled()
    except ValueError:  # whoever reads the lock for its own sake says that it is damaged
        return False
