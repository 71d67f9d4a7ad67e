"""The manifest of the moment: weights.yaml together with what was loaded since, which comes and goes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress

from yaml import YAMLError

from pipelines.weights.downloads import one_pull_at_a_time
from pipelines.weights.loaded import (
    LOADED_NAME,
    Loaded,
    LoadedEntry,
    names,
    read_loaded,
    with_loaded,
    write_loaded,
)
from pipelines.weights.lock import read_lock, write_lock
from pipelines.weights.manifest import Manifest, Source, load_manifest
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
        return {(item.origin, _source(item).revision)}

    def add(self, name: str, item: LoadedEntry) -> None:
        """Record an entry that was loaded.

        Raises:
            OSError: the weights folder cannot be written.
        """
        self._replace(Loaded(entries={**self._loaded.entries, name: item}))

    def remove(self, name: str) -> LoadedEntry | None:
        """Remove the record of an entry that was loaded, not its files; None if there is none of that name.

        Raises:
            OSError: the weights folder cannot be written.
        """
        entries = dict(self._loaded.entries)
        item = entries.pop(name, None)
        if item is not None:
            self._replace(Loaded(entries=entries))
        return item

    def remove_files(self, item: LoadedEntry) -> None:
        """Remove the files of an entry that was loaded, unless another entry names them too. Blocking.

        Raises:
            OSError: a file cannot be removed.
        """
        source = _source(item)
        with one_pull_at_a_time(self._weights, wait=True):
            try:
                lock = read_lock(self._weights)
            except ValueError:
                if source.file is not None:  # the lock is damaged, and its record is lost already
                    (self._weights / source.file).unlink(missing_ok=True)
                return
            if source.hub is not None:
                key = f"{source.hub}@{source.revision}"
                if key in lock.repositories and key not in {each.key for each in repositories(self.manifest)}:
                    shutil.rmtree(self._weights / lock.repositories.pop(key).folder, ignore_errors=True)
            else:
                name = str(source.file)
                (self._weights / name).unlink(missing_ok=True)
                lock.downloads.pop(name, None)
            write_lock(self._weights, lock)

    def _replace(self, loaded: Loaded) -> None:
        write_loaded(self._weights, loaded)
        self._loaded = loaded
        self.manifest = with_loaded(self.own, loaded, self._weights)


def _hubs(manifest: Manifest, name: str) -> Iterator[tuple[str, str]]:
    """The repositories, with their revisions, of everything in a manifest that has that name."""
    name = manifest.id_of(name)
    opened = manifest.openable().get(name)
    adapters = [entry.source for each, entry in manifest.adapters() if each == name]
    for source in [*(opened.parts.values() if opened else ()), *adapters]:
        if source.hub is not None:
            yield source.hub, source.revision


def _source(item: LoadedEntry) -> Source:
    """The source of an entry; a file is named relative to the weights folder."""
    return Source.model_validate(item.entry.get("source") or item.entry["parts"]["pipeline"])
