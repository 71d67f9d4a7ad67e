"""Add one checkpoint or adapter by the operator's command, and remove it, beside a server or without."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import SECTIONS, LocalKind, StableDiffusionFamily
from pipelines.weights.loaded import (
    LOADED_NAME,
    Loaded,
    LoadedEntry,
    change_loaded,
    load_full_manifest,
    names,
    read_loaded,
)
from pipelines.weights.manifest import load_manifest
from server.engines.devices import devices
from server.loading.catalogue import remove_files
from server.loading.changes import is_served
from server.loading.incoming import Incoming
from server.loading.local_files import Look
from server.loading.model_folders import SUFFIXES, Candidate
from server.loading.model_names import free_name, is_name
from server.loading.page_addresses import HUB_HOSTS, Address, NotAFile, file_address
from server.loading.scan import decide_image_networks, kind_of, local_entry, look_at
from server.loading.transfer import NotLoaded
from server.outside.public_http import NotReached, PublicHTTP
from server.settings import Settings

_FILE_OF_REPOSITORY = re.compile(r"(?P<hub>[\w.-]+/[\w.-]+)/(?P<file>[^?#]+\.\w+)")

_EVERYWHERE = ("0.0.0.0/0", "::/0")
"""The hosts that an operator may name: all of them, unlike callers."""

_UNBOUNDED_GB = 1e6


class NotAdded(Exception):
    """Something was not added or removed; ``str(error)`` says why, to the operator."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator wants to be added.

    Attributes:
        text: a path, a URL, or a repository of the hub as ``owner/name`` with ``@revision`` perhaps.
        name: the name to draw with it; None: the one of its file.
        kind: the kind that it has to be; None for any.
        family: the family that is taken where nothing tells it.
    """

    text: str
    name: str | None = None
    kind: LocalKind | None = None
    family: StableDiffusionFamily | None = None


@dataclass(frozen=True, slots=True)
class Addition:
    """What was added, or would be."""

    name: str
    item: LoadedEntry
    about: str = ""


def on_cpu(settings: Settings) -> bool:
    """Whether all engines draw on the CPU, where half precision is of no use."""
    return set(devices(settings.devices)) == {"cpu"}


def local_path(text: str) -> Path | None:
    """The path that a text means, if it means one: what is there comes before a repository of the same name.

    Raises:
        NotAdded: it can be nothing but a path, and nothing is there.
    """
    path = Path(text.removeprefix("file://")).expanduser()
    if "://" in text and not text.startswith("file://"):
        return None
    if path.exists():
        return path.absolute()
    if text.startswith(("/", "./", "../", "~", "file://")) or ("/" not in text and path.suffix in SUFFIXES):
        raise NotAdded(f"{text}: there is no such file")
    return None


def add_local(wanted: Wanted, path: Path, settings: Settings, *, dry_run: bool = False) -> Addition:
    """Record a file or folder, to be drawn with where it lies.

    Raises:
        NotAdded: it cannot be drawn with, or its name is taken.
        OSError: the weights folder cannot be written.
    """
    manifest = load_manifest(settings.manifest)
    look = Look(manifest, on_cpu(settings), wanted.family, thorough=True)
    candidate = Candidate(path, path.name, wanted.kind)
    found = look_at(candidate, look)
    decide_image_networks([found], look)
    if found.model is None:
        hint = f"; to add what is in it: understudy models scan {path}" if path.is_dir() else ""
        raise NotAdded(f"{path}: {found.problem}{hint}")
    if wanted.kind not in (None, found.model.kind):
        raise NotAdded(f"{path}: it is a {_word(found.model.kind)}, not a {_word(wanted.kind)}")
    own = set(names(manifest))

    def change(loaded: Loaded) -> Loaded:
        same = {name for name, item in loaded.entries.items() if _lies_at(item, path)}
        taken = (own | loaded.entries.keys()) - same
        found.name = _name(wanted, taken) or next(iter(same), "") or free_name(candidate, taken.__contains__)
        others = {name: item for name, item in loaded.entries.items() if name not in same}
        item = local_entry(found, loaded_at=datetime.now(UTC), scanned=None)
        return Loaded(entries={**others, found.name: item})

    loaded = _changed(settings.weights, change, dry_run=dry_run)
    return Addition(found.name, loaded.entries[found.name], found.model.about)


async def add_remote(wanted: Wanted, settings: Settings, progress: Callable[[int, int], None]) -> Addition:
    """Bring a file or repository into the weights folder, and record it.

    Raises:
        NotAdded: it could not be fetched or cannot be drawn with, or its name is taken.
    """
    address = _address(wanted.text)
    unbounded = settings.model_copy(update={"max_load_gb": max(settings.max_load_gb, _UNBOUNDED_GB)})
    incoming = Incoming(unbounded, PublicHTTP(_EVERYWHERE))
    taken = set(names(load_full_manifest(settings.manifest, settings.weights)))
    name = _name(wanted, taken) or _name_of(address, taken)
    revision = address.revision or "main"
    try:
        if "://" in address.origin:
            brought = await incoming.file(name, address.origin, wanted.family, None, progress)
        else:
            brought = await incoming.repository(name, address.origin, revision, wanted.family, None, progress)
    except (NotLoaded, Unrecognised, NotReached) as error:
        hint = "; download it, and add the file" if "below upscalers" in str(error) else ""
        raise NotAdded(f"{wanted.text}: {error}{hint}") from error
    item = LoadedEntry(
        section=SECTIONS[brought.kind],
        entry=brought.entry,
        origin=address.origin.partition("?")[0],
        loaded_at=datetime.now(UTC),
        warning="; ".join(brought.warnings) or None,
    )
    if wanted.kind not in (None, brought.kind):
        remove_files(item, settings.weights, load_full_manifest(settings.manifest, settings.weights))
        raise NotAdded(f"{wanted.text}: it is a {_word(brought.kind)}, not a {_word(wanted.kind)}")
    change_loaded(settings.weights, lambda loaded: Loaded(entries={**loaded.entries, name: item}))
    return Addition(name, item)


def remove(which: Iterable[str], settings: Settings, *, dry_run: bool = False) -> list[Addition]:
    """Forget what was added or scanned, and remove the files that were brought for it.

    A running server removes them itself, when nobody draws with them any more.

    Args:
        which: names, paths of files that are used where they lie, or folders that were scanned.
    Raises:
        NotAdded: one of them is unknown, or stands in weights.yaml; nothing is removed then.
        OSError: the weights folder cannot be written, or a file not removed.
    """
    own = load_manifest(settings.manifest)
    loaded = read_loaded(settings.weights)
    chosen: dict[str, LoadedEntry] = {}
    for text in which:
        found = _meant(text, loaded)
        if not found:
            if text in set(names(own)):
                raise NotAdded(f"{text} stands in {settings.manifest}; remove it there")
            raise NotAdded(f"{text} is not among what was added; `understudy models list` shows all")
        chosen |= found

    def change(loaded: Loaded) -> Loaded:
        return Loaded(entries={name: item for name, item in loaded.entries.items() if name not in chosen})

    _changed(settings.weights, change, dry_run=dry_run)
    if not dry_run and not is_served(settings.weights):
        manifest = load_full_manifest(settings.manifest, settings.weights)
        for item in chosen.values():
            remove_files(item, settings.weights, manifest)
    return [Addition(name, item) for name, item in chosen.items()]


def _changed(weights: Path, change: Callable[[Loaded], Loaded], *, dry_run: bool) -> Loaded:
    try:
        return change(read_loaded(weights)) if dry_run else change_loaded(weights, change)
    except ValueError as error:
        raise NotAdded(f"{weights / LOADED_NAME} is damaged: {error}") from error


def _meant(text: str, loaded: Loaded) -> dict[str, LoadedEntry]:
    if text in loaded.entries:
        return {text: loaded.entries[text]}
    path = Path(text).expanduser().absolute()
    return {
        name: item
        for name, item in loaded.entries.items()
        if item.in_place and (_lies_at(item, path) or item.scanned == str(path))
    } or {name: item for name, item in loaded.entries.items() if text in item.entry.get("also", ())}


def _lies_at(item: LoadedEntry, path: Path) -> bool:
    place = item.source.file or item.source.folder
    return item.in_place and place is not None and place.resolve() == path.resolve()


def _name(wanted: Wanted, taken: set[str]) -> str | None:
    """The name that the operator wants, if one is wanted.

    Raises:
        NotAdded: it is none, or taken.
    """
    if wanted.name is None:
        return None
    if not is_name(wanted.name):
        raise NotAdded(
            f"{wanted.name!r} cannot be a name: 1 to 128 characters, without blanks around, commas, slashes,"
            " colons or angle brackets"
        )
    if wanted.name in taken:
        raise NotAdded(f"{wanted.name} is taken; give another --id, or remove that first")
    return wanted.name


def _name_of(address: Address, taken: set[str]) -> str:
    """A name for what comes from an address: that of its file or repository."""
    split = urlsplit(address.origin)
    path = Path(unquote(split.path))
    if "://" in address.origin and path.suffix not in SUFFIXES:  # a download by number, such as Civitai's
        path = Path(f"{split.netloc.removeprefix('www.').partition('.')[0]}-{path.name}")
    candidate = Candidate(path if path.suffix in SUFFIXES else Path(f"{path}.safetensors"), "")
    found = free_name(candidate, taken.__contains__)
    return (
        found if is_name(found) else free_name(Candidate(Path("model.safetensors"), ""), taken.__contains__)
    )


def _address(text: str) -> Address:
    """The URL or repository that a text names.

    Raises:
        NotAdded: it names neither.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or f"https://{HUB_HOSTS[0]}"
    own_hub = urlsplit(endpoint).netloc
    if "://" not in text and (found := _FILE_OF_REPOSITORY.fullmatch(text)):
        return Address(f"{endpoint.rstrip('/')}/{found['hub']}/resolve/main/{quote(found['file'])}")
    try:
        address = file_address(text, (*HUB_HOSTS, own_hub))
    except NotAFile as error:
        raise NotAdded(f"{text} {error}") from error
    if "://" not in address.origin and address.origin.count("/") != 1:
        raise NotAdded(f"{text} is no file here, no URL, and no repository of the hub as owner/name")
    return address


def _word(kind: str | None) -> str:
    return (kind or "").replace("_", " ")


def kind_words(item: LoadedEntry) -> str:
    """The kind of an entry as a person reads it."""
    return _word(kind_of(item))
