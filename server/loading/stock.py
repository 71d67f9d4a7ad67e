"""All that can be drawn with, as the operator's list of it has it: sizes, what is in memory, last uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.weights.entries import AdapterEntry, ControlNetEntry, ImageNetworkEntry, PipelineEntry, Source
from pipelines.weights.kinds import LOCAL_SECTIONS, STABLE_DIFFUSION_FAMILIES
from pipelines.weights.loaded import LoadedEntry, load_full_manifest, names, read_loaded
from pipelines.weights.lock import LockedRepository, read_lock
from pipelines.weights.manifest import Manifest, load_manifest
from server.loading.changes import is_served
from server.loading.usage import ModelUsage, read_usage
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be drawn with.

    Attributes:
        kind: checkpoint, lora, ... ; ``other`` for what is not Stable Diffusion.
        size: the bytes of its files, as far as they are here.
        state: ``yes`` where an engine has it in memory; what is missing where it cannot be drawn with.
        origin: where it comes from.
        own: whether it stands in weights.yaml.
    """

    name: str
    kind: str
    family: str
    size: int
    state: str
    last_used: datetime | None
    origin: str
    own: bool
    also: tuple[str, ...]
    warning: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "family": self.family or None,
            "bytes": self.size,
            "loaded": self.state == "yes",
            "state": self.state,
            "last_used": self.last_used,
            "from": self.origin,
            "in_manifest": self.own,
            "also": self.also,
            "warning": self.warning,
        }


def stock(settings: Settings) -> list[Item]:
    """Everything that can be drawn with, by kind and name.

    Raises:
        ValueError: weights.yaml or loaded.yaml is not valid.
    """
    manifest = load_full_manifest(settings.manifest, settings.weights)
    own = set(names(load_manifest(settings.manifest)))
    loaded = read_loaded(settings.weights).entries
    usage = read_usage(settings.data) if is_served(settings.weights) else _unserved(settings.data)
    pulled = read_lock(settings.weights).repositories
    items: list[Item] = []
    for kind, section in LOCAL_SECTIONS.items():
        entries: Mapping[str, Any] = getattr(manifest, section)
        for name, entry in entries.items():
            sources = _sources(entry)
            sizes = [_size(manifest, source, settings.weights, pulled) for source in sources]
            family = getattr(entry, "family", "")
            is_other = kind == "checkpoint" and family not in STABLE_DIFFUSION_FAMILIES
            item = None if name in own else loaded.get(name)
            items.append(
                Item(
                    name=name,
                    kind="other" if is_other else kind,
                    family=family,
                    size=sum(size or 0 for size in sizes),
                    state=_state(name, sources, sizes, usage),
                    last_used=usage.last_used.get(name),
                    origin="weights.yaml" if item is None else _origin(item),
                    own=name in own,
                    also=entry.also,
                    warning=None if item is None else item.warning,
                )
            )
    return items


def _unserved(data: Path) -> ModelUsage:
    return read_usage(data).model_copy(update={"resident": ()})


def _origin(item: LoadedEntry) -> str:
    return item.origin


def _sources(entry: PipelineEntry | ImageNetworkEntry | AdapterEntry) -> list[Source]:
    if isinstance(entry, PipelineEntry):
        return list(entry.parts.values())
    sources = [entry.source]
    if isinstance(entry, ControlNetEntry) and entry.annotator is not None:
        sources.append(entry.annotator)
    return sources


def _size(
    manifest: Manifest, source: Source, weights: Path, pulled: Mapping[str, LockedRepository]
) -> int | None:
    """The bytes of a source; None where it is not here."""
    if source.dummy is not None:
        return 0
    if source.hub is not None:
        repository = pulled.get(f"{source.hub}@{source.revision}")
        return None if repository is None else sum(file.size for file in repository.files.values())
    given = source.file or source.folder
    assert given is not None
    path = manifest.path.parent / given
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    try:
        return path.stat().st_size
    except OSError:
        return None


def _state(name: str, sources: list[Source], sizes: list[int | None], usage: ModelUsage) -> str:
    absent = [source for source, size in zip(sources, sizes, strict=True) if size is None]
    if any(source.hub is not None for source in absent):
        return "not pulled"
    if absent:
        return "missing"
    return "yes" if name in usage.resident else "no"
