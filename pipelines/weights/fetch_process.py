"""One repository of the hub, looked at, refused or fetched, in a process of its own beside a server.

Run as ``python -m pipelines.weights.fetch_process``: a `Wanted` comes in as JSON on the standard input, which
stays open; when it closes, whoever asked is gone, and so is this process. What happens goes out as lines of
JSON: a `DownloadProgress` now and then, at the end `Fetched` or `Refused`.
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

from pipelines.weights.downloads import one_pull_at_a_time, pull, sized
from pipelines.weights.hub import Hub, PullError, RemoteFile
from pipelines.weights.loaded import LoadedEntry, Section, read_loaded, with_loaded
from pipelines.weights.manifest import load_manifest
from pipelines.weights.recognition import Unrecognised, read_shapes, recognise
from pipelines.weights.repositories import Repository, repositories, select

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Formats that can run code when they are opened."""

NO_PICKLES = "is a pickle, which can run code when it is opened; give a .safetensors"

SECTIONS: dict[str, Section] = {
    "checkpoint": "pipelines",
    "lora": "loras",
    "embedding": "embeddings",
    "vae": "vaes",
    "controlnet": "controlnets",
}
"""Kind of `pipelines.weights.recognition` -> where it stands in weights.yaml."""

_PIPELINES = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
_NETWORKS = {"AutoencoderKL": "vae", "ControlNetModel": "controlnet"}
_SDXL_SCALING = 0.13025
_REPORT_S = 0.5


class Wanted(BaseModel):
    """``dtype`` of a checkpoint of each family; ``max_bytes`` of all that is fetched."""

    name: str
    hub: str
    revision: str
    manifest: Path
    weights: Path
    dtypes: dict[str, str]
    max_bytes: int
    family: str | None = None


class DownloadProgress(BaseModel):
    """Bytes."""

    done: int
    total: int


class Fetched(BaseModel):
    """It is here. ``kind`` as of `pipelines.weights.recognition`."""

    kind: str
    entry: dict[str, Any]


class Refused(BaseModel):
    """``problem``: fit for the caller."""

    problem: str


Line: TypeAdapter[DownloadProgress | Fetched | Refused] = TypeAdapter(DownloadProgress | Fetched | Refused)


def fetch(wanted: Wanted, say: Callable[[BaseModel], None]) -> Fetched:
    """Look at a repository, and bring it if this server can draw with it.

    Raises:
        PullError, Unrecognised: the reason in words.
    """
    hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
    plain = Repository(wanted.hub, wanted.revision, False, (), frozenset(), (), False, (wanted.name,))
    commit = hub.commit(plain)
    listing = hub.listing(plain, commit)
    look = _Look(hub, plain, commit, listing, wanted)
    kind, family, source = look.recognise()
    found = _entry(wanted, kind, family, source)
    item = LoadedEntry.model_validate(
        {"section": SECTIONS[kind], "entry": found, "origin": wanted.hub, "loaded_at": "2000-01-01T00:00:00Z"}
    )
    loaded = read_loaded(wanted.weights)
    both = loaded.model_copy(update={"entries": {**loaded.entries, wanted.name: item}})
    catalogue = with_loaded(load_manifest(wanted.manifest), both, wanted.weights)
    needed = [each for each in repositories(catalogue, [wanted.name]) if each.hub == wanted.hub]
    with one_pull_at_a_time(wanted.weights, wait=True):
        for repository in needed:
            chosen = look.choose(repository)
            with _reported(wanted.weights, repository, {name: listing[name] for name in chosen}, say):
                pull(hub, repository, wanted.weights)
    if kind == "lora":  # what else a single file may be is known by now
        kind, family = _single(wanted, source)
        found = _entry(wanted, kind, family, source)
    return Fetched(kind=kind, entry=found)


class _Look:
    """A repository before anything large of it is fetched."""

    def __init__(
        self, hub: Hub, repository: Repository, commit: str, listing: dict[str, RemoteFile], wanted: Wanted
    ) -> None:
        self._hub, self._repository, self._commit = hub, repository, commit
        self._listing, self._wanted = listing, wanted

    def recognise(self) -> tuple[str, str | None, dict[str, Any]]:
        """Kind, family where it can be told yet, and source."""
        source: dict[str, Any] = {"hub": self._wanted.hub, "revision": self._wanted.revision}
        if "model_index.json" in self._listing:
            return "checkpoint", self._pipeline_family(), {**source, "skip": ["safety_checker"]}
        if "config.json" in self._listing:
            config = self._json("config.json")
            kind = _NETWORKS.get(str(config.get("_class_name")))
            if kind is None:
                raise Unrecognised(f"it is a {config.get('_class_name') or 'network'} of another library")
            return kind, self._network_family(kind, config), source
        files = [name for name in self._listing if name.endswith(".safetensors") and "/" not in name]
        if not files and any(name.endswith(PICKLES) for name in self._listing):
            raise Unrecognised(f"it {NO_PICKLES}")
        if len(files) != 1:
            raise Unrecognised(
                f"it has {len(files)} .safetensors files and no model_index.json; give the URL of one file"
            )
        return "lora", "sd15", {**source, "files": files}

    def choose(self, repository: Repository) -> list[str]:
        """The files that are needed, all of them safe to open and together within the bound."""
        components = None
        if "model_index.json" in self._listing and not repository.files:
            index = self._json("model_index.json")
            components = [name for name, cls in index.items() if isinstance(cls, list) and cls[0] is not None]
        chosen = list(select(self._listing.keys(), repository, components))
        for name in chosen:
            if name.endswith(PICKLES) or ".bin.index" in name:
                raise Unrecognised(f"{name} {NO_PICKLES}")
        size = sum(self._listing[name].size for name in chosen)
        if size > self._wanted.max_bytes:
            bound = self._wanted.max_bytes / 1e9
            raise Unrecognised(f"it has {sized(size)}, and this server loads at most {bound:g} GB")
        return chosen

    def _pipeline_family(self) -> str:
        name = str(self._json("model_index.json").get("_class_name"))
        if name not in _PIPELINES:
            raise Unrecognised(f"it is a {name}; this server draws with {' and '.join(_PIPELINES)}")
        if "unet/config.json" in self._listing:
            network = self._json("unet/config.json")
            if network.get("cross_attention_dim") == 1024:
                raise Unrecognised("it belongs to Stable Diffusion 2; this server draws with SD1.5 and SDXL")
            if network.get("in_channels", 4) != 4:
                raise Unrecognised("its network is for inpainting or editing and reads more than 4 channels")
        return _PIPELINES[name]

    def _network_family(self, kind: str, config: dict[str, Any]) -> str:
        if kind == "vae":
            if config.get("latent_channels", 4) != 4:
                raise Unrecognised(f"it is a VAE with {config['latent_channels']} latent channels, not 4")
            told = "sdxl" if config.get("scaling_factor") == _SDXL_SCALING else "sd15"
            return self._wanted.family or told
        return "sdxl" if config.get("cross_attention_dim") == 2048 else "sd15"

    def _json(self, name: str) -> dict[str, Any]:
        """A small file of the repository."""
        remote = self._listing[name]
        partial = self._wanted.weights / ".parts" / remote.upstream
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists() and partial.stat().st_size > remote.size:
            partial.unlink()
        self._hub.fetch(self._repository, self._commit, name, remote, partial)
        found: object = json.loads(partial.read_text())
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _single(wanted: Wanted, source: dict[str, Any]) -> tuple[str, str]:
    """What the one file is, which its name does not tell."""
    folder = repositories_folder(wanted)
    recognised = recognise(read_shapes(folder / source["files"][0]))
    if recognised.kind == "checkpoint":
        raise Unrecognised("its one file is a whole checkpoint; give the URL of that file")
    return recognised.kind, recognised.family or wanted.family or "sd15"


def repositories_folder(wanted: Wanted) -> Path:
    """Where the repository lies."""
    from pipelines.weights.repositories import folder

    return wanted.weights / folder(wanted.hub, wanted.revision)


def _entry(wanted: Wanted, kind: str, family: str | None, source: dict[str, Any]) -> dict[str, Any]:
    """What would stand in weights.yaml."""
    family = family or "sd15"
    return loaded_entry(kind, family, source, wanted.dtypes)


def loaded_entry(kind: str, family: str, source: dict[str, Any], dtypes: dict[str, str]) -> dict[str, Any]:
    """What would stand in weights.yaml for a source of that kind and family."""
    if kind == "checkpoint":
        return {"family": family, "parts": {"pipeline": source}, "dtype": dtypes[family]}
    return {"family": family, "source": source}


def unwritable(error: OSError) -> str:
    """Why nothing can be loaded into a weights folder; fit for the caller."""
    return f"the weights folder cannot be written: {error.strerror or 'an unknown reason'}"


class _reported:
    """Says every half second how many bytes of the files are here."""

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
            if self._ended.wait(_REPORT_S):
                return

    def _total(self) -> int:
        return sum(file.size for file in self._files.values())

    def _here(self, name: str) -> int:
        file = self._files[name]
        partial = self._weights / ".parts" / file.upstream
        try:
            return min(partial.stat().st_size, file.size)
        except FileNotFoundError:
            # A half-precision variant is stored under the plain name.
            stored = self._folder / name.replace(".fp16.", ".")
            return file.size if stored.exists() else 0


def main() -> None:
    wanted = Wanted.model_validate_json(sys.stdin.readline())
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
