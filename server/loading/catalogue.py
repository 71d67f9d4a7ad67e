"""The manifest of the moment: weights.yaml together with what was loaded since, which comes and goes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from yaml import YAMLError

from pipelines.weights.downloads import one_pull_at_a_time
from pipelines.weights.entries import Source
from pipelines.weights.loaded import (
    LOADED_FOLDER,
    LOADED_NAME,
    Loaded,
    LoadedEntry,
    change_loaded,
    names,
    read_loaded,
    with_loaded,
)
from pipelines.weights.lock import read_lock, write_lock
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.repositories import repositories
from server.settings import Settings

log = logging.getLogger(__name__)


class Catalogue:
    """The manifest of the moment. Whoever changes it tells the engines of the change.

    Attributes:
        manifest: weights.yaml with what was loaded; another object after each change.
        own: weights.yaml alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._weights = settings.weights
        self.own: Manifest = load_manifest(settings.manifest)
        self._stamp = _stamp(self._weights)
        self._loaded: Loaded = self._read_loaded()
        self.manifest: Manifest = with_loaded(self.own, self._loaded, self._weights)

    def _read_loaded(self) -> Loaded:
        """What was loaded; a damaged record is put aside, so that everything else is drawn."""
        try:
            return read_loaded(self._weights)
        except (ValueError, YAMLError) as error:
            path = self._weights / LOADED_NAME
            aside = path.with_name(f"{LOADED_NAME}.damaged")
            log.error(
                "%s is damaged, and nothing of what was loaded is drawn with; it is kept as %s: %s",
                LOADED_NAME,
                aside.name,
                error,
            )
            with suppress(OSError):
                path.replace(aside)
            return Loaded()

    def has(self, name: str) -> bool:
        """Whether anything of whatever kind has that name."""
        return name in names(self.manifest)

    def is_own(self, name: str) -> bool:
        """Whether the name stands in weights.yaml, as that of an entry or as another name of one."""
        return name in names(self.own)

    def own_words(self, name: str) -> str:
        """What weights.yaml has of that name, in words fit for the caller."""
        id_ = self.own.id_of(name)
        place = "stands in this server's weights.yaml"
        return f"{name} {place}" if id_ == name else f"{name} is another name of {id_}, which {place}"

    def loaded(self) -> dict[str, LoadedEntry]:
        """The entries that were loaded, by name; one whose name stands in weights.yaml is left out."""
        return {name: item for name, item in self._loaded.entries.items() if not self.is_own(name)}

    def origins(self, name: str) -> set[tuple[str, str]]:
        """The repositories, with their revisions, and URLs from which what has that name comes.

        A URL is known without its query, so that one with a query is never found here: it may name a file.
        """
        item = self.loaded().get(name)
        if item is None:
            return set(_hubs(self.own, name))
        return {(item.origin, item.source.revision)}

    def add(self, name: str, item: LoadedEntry) -> None:
        """Record an entry that was loaded.

        Raises:
            OSError: the weights folder cannot be written.
        """
        change_loaded(self._weights, lambda loaded: _with(loaded, {name: item}))
        self.take(_with(self._loaded, {name: item}))

    def remove(self, name: str) -> LoadedEntry | None:
        """Remove the record of an entry that was loaded, not its files; None if there is none of that name.

        Raises:
            OSError: the weights folder cannot be written.
        """
        item = self._loaded.entries.get(name)
        if item is not None:
            change_loaded(self._weights, lambda loaded: _without(loaded, {name}))
            self.forget({name})
        return item

    def changed(self) -> Loaded | None:
        """What loaded.yaml says now, where others changed it since the last call; None where all is as known.

        Raises:
            ValueError: the record is damaged.
        """
        stamp = _stamp(self._weights)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        loaded = read_loaded(self._weights)
        return None if loaded == self._loaded else loaded

    def gone(self, loaded: Loaded) -> dict[str, LoadedEntry]:
        """The entries that are known here and are not, or are something else, in another record."""
        return {
            name: item
            for name, item in self._loaded.entries.items()
            if (other := loaded.entries.get(name)) is None
            or (other.section, other.entry) != (item.section, item.entry)
        }

    def forget(self, names: set[str]) -> None:
        """Draw with these entries no more; the record is not written."""
        self.take(_without(self._loaded, names))

    def take(self, loaded: Loaded) -> None:
        """Draw with what a record says from now on; the record is not written."""
        self._loaded = loaded
        self.manifest = with_loaded(self.own, loaded, self._weights)

    def remove_files(self, item: LoadedEntry) -> None:
        """Remove the files of an entry that was loaded, unless another entry names them too. Blocking.

        Raises:
            OSError: a file cannot be removed.
        """
        remove_files(item, self._weights, self.manifest)


def remove_files(item: LoadedEntry, weights: Path, manifest: Manifest) -> None:
    """Remove the files of an entry that left the manifest, unless another entry names them too. Blocking.

    What is used where it lies is left where it lies.

    Raises:
        OSError: a file cannot be removed.
    """
    source = item.source
    if item.in_place or source.folder is not None:
        return
    with one_pull_at_a_time(weights, wait=True):
        try:
            lock = read_lock(weights)
        except ValueError:
            if _was_brought(source):  # the lock is damaged, and its record is lost already
                (weights / str(source.file)).unlink(missing_ok=True)
            return
        if source.hub is not None:
            key = f"{source.hub}@{source.revision}"
            if key in lock.repositories and key not in {each.key for each in repositories(manifest)}:
                shutil.rmtree(weights / lock.repositories.pop(key).folder, ignore_errors=True)
        elif _was_brought(source):
            (weights / str(source.file)).unlink(missing_ok=True)
            lock.downloads.pop(str(source.file), None)
        write_lock(weights, lock)


def _was_brought(source: Source) -> bool:
    """Whether a source is a file that was brought into the weights folder."""
    return source.file is not None and source.file.parts[:1] == (LOADED_FOLDER,)


def _with(loaded: Loaded, entries: dict[str, LoadedEntry]) -> Loaded:
    return Loaded(entries={**loaded.entries, **entries})


def _without(loaded: Loaded, names: set[str]) -> Loaded:
    return Loaded(entries={name: item for name, item in loaded.entries.items() if name not in names})


def _stamp(weights: Path) -> tuple[int, int, int] | None:
    """What changes with each writing of loaded.yaml; None where there is none."""
    try:
        status = (weights / LOADED_NAME).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _hubs(manifest: Manifest, name: str) -> Iterator[tuple[str, str]]:
    """The repositories, with their revisions, of everything in a manifest that has that name."""
    name = manifest.id_of(name)
    opened = manifest.openable().get(name)
    adapters = [entry.source for each, entry in manifest.adapters() if each == name]
    for source in [*(opened.parts.values() if opened else ()), *adapters]:
        if source.hub is not None:
            yield source.hub, source.revision
