"""A process beside a server that fetches one repository of the hub, or refuses it after a look at it.

Run as ``python -m pipelines.weights.fetch_process``. A `FetchRequest` comes in as JSON on the standard
input, which stays open; this process ends when it closes. Lines of JSON go out: a `DownloadProgress` now and
then, at the end `Fetched` or `Refused`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from pipelines.weights.downloads import PARTS, one_pull_at_a_time, prepare_partial, pull, sized
from pipelines.weights.folder_recognition import (
    demand_drawable,
    demand_weights,
    network_kind,
    pipeline_family,
)
from pipelines.weights.formats import NO_PICKLES, PICKLES
from pipelines.weights.header import Unrecognised
from pipelines.weights.hub import Hub, PullError, RemoteFile
from pipelines.weights.inspection import inspect_file, latent_sizes
from pipelines.weights.kinds import SECTIONS, Kind, Precision, StableDiffusionFamily, default_dtype
from pipelines.weights.loaded import load_full_manifest, parse
from pipelines.weights.lora_settings import of_config
from pipelines.weights.manifest import load_manifest
from pipelines.weights.repositories import Repository, components_of, peft_files, repositories, select

SDXL_SCALING_FACTOR = 0.13025
"""The scaling factor that tells SDXL's VAEs from those of SD1.5, whose tensors have the same shapes."""

_REPORT_INTERVAL_S = 0.5
"""Seconds between two reports of progress."""


class FetchRequest(BaseModel):
    """A repository that is to be fetched, and where to.

    Attributes:
        name: the name under which it will be drawn with.
        on_cpu: whether all engines draw on the CPU, where half precision is of no use.
        max_bytes: the most bytes that may be fetched for it.
        family: the family that the caller names; believed only where the repository does not tell.
        precision: the precision that the caller names; None if the caller names none.
    """

    name: str
    hub: str
    revision: str
    manifest: Path
    weights: Path
    on_cpu: bool
    max_bytes: int
    family: StableDiffusionFamily | None = None
    precision: Precision | None = None


class DownloadProgress(BaseModel):
    """The bytes that are here, and all that there are."""

    done: int
    total: int


class Fetched(BaseModel):
    """A checkpoint or adapter that was fetched, and the entry of weights.yaml that would stand for it.

    Attributes:
        warnings: what is not quite as the caller may expect, fit for the caller.
    """

    kind: Kind
    entry: dict[str, Any]
    warnings: tuple[str, ...] = ()


class Refused(BaseModel):
    """The refusal of a repository; ``problem`` is fit for the caller."""

    problem: str


Line: TypeAdapter[DownloadProgress | Fetched | Refused] = TypeAdapter(DownloadProgress | Fetched | Refused)


def fetch(wanted: FetchRequest, say: Callable[[BaseModel], None]) -> Fetched:
    """Look at a repository, and bring it if this server can draw with it.

    Raises:
        PullError, Unrecognised: the repository was not fetched; the error says why.
    """
    hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
    repository = Repository(hub=wanted.hub, revision=wanted.revision, users=(wanted.name,))
    commit = hub.commit(repository)
    listing = hub.listing(repository, commit)
    look = _Look(hub, repository, commit, listing, wanted)
    kind, family, source = look.recognise()
    entry = loaded_entry(kind, family, source, on_cpu=wanted.on_cpu, precision=wanted.precision)
    section = SECTIONS[kind]
    manifest = load_full_manifest(wanted.manifest, wanted.weights).with_entry(
        section, wanted.name, parse(section, wanted.name, entry, wanted.weights)
    )
    needed = [each for each in repositories(manifest, [wanted.name]) if each.hub == wanted.hub]
    only_half = False
    with one_pull_at_a_time(wanted.weights, wait=True):
        for each in needed:
            chosen = look.choose(each)
            only_half = wanted.precision == "fp32" and any(".fp16." in name for name in chosen)
            files = {stored: listing[name] for name, stored in chosen.items()}
            with _Reporting(wanted.weights, each, files, say):
                pull(hub, each, wanted.weights)
    if kind == "lora":  # only now can be read what the single file really is
        kind, family = _recognise_single_file(wanted, repository, source)
        entry = loaded_entry(kind, family, source, on_cpu=wanted.on_cpu, precision=wanted.precision)
    warnings = ("its repository has weights in half precision only",) if only_half else ()
    return Fetched(kind=kind, entry=entry, warnings=warnings)


class _Look:
    """A repository before anything large of it is fetched."""

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        commit: str,
        listing: dict[str, RemoteFile],
        wanted: FetchRequest,
    ) -> None:
        self._hub, self._repository, self._commit = hub, repository, commit
        self._listing, self._wanted = listing, wanted

    def recognise(self) -> tuple[Kind, StableDiffusionFamily, dict[str, Any]]:
        """Kind, family and source; a single file counts as a LoRA for SD1.5 until it can be read."""
        source: dict[str, Any] = {"hub": self._wanted.hub, "revision": self._wanted.revision}
        if self._wanted.precision is not None:
            source["half"] = self._wanted.precision != "fp32"
        if "model_index.json" in self._listing:
            return "checkpoint", self._pipeline_family(), {**source, "skip": ["safety_checker"]}
        if adapters := peft_files(self._listing):
            return "lora", "sd15", {**source, "files": adapters}
        if "config.json" in self._listing:
            config = self._json("config.json")
            kind = network_kind(config, latent_sizes(load_manifest(self._wanted.manifest)))
            return kind, self._network_family(kind, config), source
        files = [name for name in self._listing if name.endswith(".safetensors") and "/" not in name]
        if not files and any(name.endswith(PICKLES) for name in self._listing):
            raise Unrecognised(f"it {NO_PICKLES}")
        if len(files) != 1:
            raise Unrecognised(
                f"it has {len(files)} .safetensors files and no model_index.json; give the URL of one file"
            )
        return "lora", "sd15", {**source, "files": files}

    def choose(self, repository: Repository) -> dict[str, str]:
        """The files that are needed: the name in the repository -> the name on disk.

        Raises:
            Unrecognised: one of them is not safe to open, or together they are beyond the bound.
        """
        components = None
        if "model_index.json" in self._listing and not repository.files:
            components = components_of(self._json("model_index.json"))
        chosen = select(self._listing.keys(), repository, components)
        for name in chosen:
            if name.endswith(PICKLES) or ".bin.index" in name:
                raise Unrecognised(f"{name} {NO_PICKLES}")
        if components is not None:
            demand_weights(components, chosen)
        size = sum(self._listing[name].size for name in chosen)
        if size > self._wanted.max_bytes:
            bound = self._wanted.max_bytes / 1e9
            raise Unrecognised(f"it has {sized(size)}, and this server loads at most {bound:g} GB")
        return chosen

    def _pipeline_family(self) -> StableDiffusionFamily:
        family = pipeline_family(self._json("model_index.json"))
        demand_drawable(family, lambda name: self._json(name) if name in self._listing else {})
        return family

    def _network_family(self, kind: str, config: dict[str, Any]) -> StableDiffusionFamily:
        if kind == "vae":
            if self._wanted.family is not None:
                return self._wanted.family
            return "sdxl" if config.get("scaling_factor") == SDXL_SCALING_FACTOR else "sd15"
        return "sdxl" if config.get("cross_attention_dim") == 2048 else "sd15"

    def _json(self, name: str) -> dict[str, Any]:
        """Fetch a small file of the repository and parse it."""
        remote = self._listing[name]
        partial = prepare_partial(self._wanted.weights / PARTS, remote)
        self._hub.fetch(self._repository, self._commit, name, remote, partial)
        found: object = json.loads(partial.read_text())
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _recognise_single_file(
    wanted: FetchRequest, repository: Repository, source: dict[str, Any]
) -> tuple[Kind, StableDiffusionFamily]:
    """Kind and family of the file that was fetched, or of PEFT's several, which names do not tell."""
    folder = wanted.weights / repository.folder
    for name in source["files"]:
        if name.endswith(".json"):
            of_config((folder / name).read_text(errors="replace"))
    tensors = [name for name in source["files"] if name.endswith(".safetensors")]
    found = [
        inspect_file(folder / name, wanted.manifest, name.rpartition("/")[0].removesuffix("_lora"))
        for name in tensors
    ]
    if found[0].kind == "checkpoint":
        raise Unrecognised("its one file is a whole checkpoint; give the URL of that file")
    told: set[StableDiffusionFamily] = {each.family for each in found if each.family is not None}
    family = next(iter(told)) if told else wanted.family
    return found[0].kind, family or "sd15"


def loaded_entry(
    kind: Kind,
    family: StableDiffusionFamily,
    source: dict[str, Any],
    *,
    on_cpu: bool,
    precision: Precision | None = None,
) -> dict[str, Any]:
    """The entry of weights.yaml that would stand for a source of that kind and family."""
    if kind == "checkpoint":
        dtype = default_dtype(family, on_cpu=on_cpu, precision=precision)
        return {"family": family, "parts": {"pipeline": source}, "dtype": dtype}
    return {"family": family, "source": source}


def unwritable(error: OSError) -> str:
    """The reason why nothing can be loaded into a weights folder, fit for the caller."""
    return f"the weights folder cannot be written: {error.strerror or 'an unknown reason'}"


class _Reporting:
    """A thread that says every half second how many bytes of the files are here.

    Args:
        files: what the hub has, by the name on disk.
    """

    def __init__(
        self,
        weights: Path,
        repository: Repository,
        files: dict[str, RemoteFile],
        say: Callable[[BaseModel], None],
    ) -> None:
        self._weights, self._folder, self._files = weights, weights / repository.folder, files
        self._say = say
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        while True:
            self._say(DownloadProgress(done=sum(map(self._here, self._files)), total=self._total()))
            if self._ended.wait(_REPORT_INTERVAL_S):
                return

    def _total(self) -> int:
        return sum(file.size for file in self._files.values())

    def _here(self, stored: str) -> int:
        file = self._files[stored]
        partial = self._weights / PARTS / file.upstream
        try:
            return min(partial.stat().st_size, file.size)
        except FileNotFoundError:
            return file.size if (self._folder / stored).exists() else 0


def main() -> None:
    wanted = FetchRequest.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    lines = threading.Lock()

    def say(line: BaseModel) -> None:
        with lines:
            print(line.model_dump_json(), flush=True)

    try:
        say(fetch(wanted, say))
    except (PullError, Unrecognised) as error:
        say(Refused(problem=str(error)))
    except OSError as error:
        say(Refused(problem=unwritable(error)))


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
