"""loaded.yaml: what was loaded beside weights.yaml while the server ran. Torch-free.

It lies in the weights folder, with the files that it names: there it can always be written, also where
weights.yaml is mounted read-only, and whoever moves the weights takes it along.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.weights.lock import read_lock
from pipelines.weights.manifest import Manifest, PipelineEntry, Source, load_manifest

log = logging.getLogger(__name__)

LOADED_NAME = "loaded.yaml"

FILES = "loaded"
"""Below the weights folder: single files that were loaded, by the names under which they are drawn with."""

Section = Literal["pipelines", "loras", "embeddings", "vaes", "controlnets"]

_BORROWED = "safety_checker"
"""A loaded checkpoint has the safety checker of the manifest's checkpoints of its family."""


class LoadedEntry(BaseModel):
    """One thing that was loaded.

    Attributes:
        section: of weights.yaml in which ``entry`` would stand.
        entry: what would stand there; a file is named relative to the weights folder.
        origin: the URL or repository that it was loaded from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: Section
    entry: dict[str, Any]
    origin: str
    loaded_at: datetime


class Loaded(BaseModel):
    """The whole file; ``entries`` by model id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: dict[str, LoadedEntry] = Field(default_factory=dict)


def read_loaded(weights: Path) -> Loaded:
    """What was loaded into a weights folder; nothing where there is no file yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = weights / LOADED_NAME
    return Loaded.model_validate(yaml.safe_load(path.read_text()) or {}) if path.exists() else Loaded()


def write_loaded(weights: Path, loaded: Loaded) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    weights.mkdir(parents=True, exist_ok=True)
    aside = weights / f".{LOADED_NAME}.{os.getpid()}"
    head = "# Written by load_model and delete_model; in the words of weights.yaml.\n"
    aside.write_text(head + yaml.safe_dump(loaded.model_dump(mode="json"), allow_unicode=True))
    aside.replace(weights / LOADED_NAME)


def load_catalogue(manifest: Path, weights: Path) -> Manifest:
    """All that can be drawn: weights.yaml with what was loaded.

    Raises:
        pydantic.ValidationError: weights.yaml is not valid.
        ValueError: loaded.yaml is damaged.
    """
    return with_loaded(load_manifest(manifest), read_loaded(weights), weights)


def with_loaded(manifest: Manifest, loaded: Loaded, weights: Path) -> Manifest:
    """A manifest with more in it. A name that stands in weights.yaml means what stands there."""
    own = set(names(manifest))
    for name, item in loaded.entries.items():
        if name in own:
            log.warning("%s stands in weights.yaml now; what was loaded under this name is left out", name)
            continue
        try:
            parsed = parse(item, weights, name)
        except (ValidationError, ValueError) as error:
            log.error("%s was loaded, but is of no use to this version: %s", name, error)
            continue
        entry = getattr(parsed, item.section)[name]
        if isinstance(entry, PipelineEntry):
            entry = _with_safety_checker(entry, manifest, weights)
        manifest = manifest.model_copy(
            update={item.section: {**getattr(manifest, item.section), name: entry}}
        )
    return manifest


def parse(item: LoadedEntry, weights: Path, name: str) -> Manifest:
    """A manifest that has nothing but this entry, its file found from anywhere.

    Raises:
        pydantic.ValidationError: this version does not know such entries.
    """
    entry = _absolute(item.entry, weights.absolute())
    return Manifest.model_validate({"pipelines": {}, item.section: {name: entry}})


def names(manifest: Manifest) -> Iterator[str]:
    """Of everything that a manifest has, whatever it is."""
    for section in Manifest.model_fields:
        value: object = getattr(manifest, section)
        if isinstance(value, dict):
            yield from cast("dict[str, object]", value)


def _absolute(entry: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, dict):
            found[key] = _absolute(cast("dict[str, Any]", value), weights)
        else:
            found[key] = str(weights / value) if key in ("file", "folder") else value
    return found


def _with_safety_checker(entry: PipelineEntry, manifest: Manifest, weights: Path) -> PipelineEntry:
    for other in manifest.pipelines.values():
        checker = other.parts.get(_BORROWED)
        if other.family == entry.family and checker is not None and _is_here(checker, weights):
            return entry.model_copy(update={"parts": {**entry.parts, _BORROWED: checker}})
    return entry


def _is_here(source: Source, weights: Path) -> bool:
    return source.hub is None or f"{source.hub}@{source.revision}" in read_lock(weights).repositories
