"""The hub repositories that a manifest names, the files of them that are needed, and their folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

from pipelines.weights.alternatives import open_poses
from pipelines.weights.entries import PipelineEntry, Source
from pipelines.weights.lora_names import NETWORKS
from pipelines.weights.lora_settings import CONFIG_NAME
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import part_bytes
from pipelines.weights.networks import tokenizer_of

_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)"
    r"(?P<before>\.fp16)?(?P<shard>-\d+-of-\d+)?(?P<after>\.fp16)?\.(?P<format>safetensors|bin)"
)
_INDEX = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)\.(?P<format>safetensors|bin)\.index(?P<half>\.fp16)?\.json"
)
_PEFT_WEIGHTS = re.compile(r"(^|/)adapter_model\.(safetensors|bin)$")
"""The tensors of an adapter that PEFT saved."""

_SMALL = (".json", ".txt", ".model")
"""Suffixes of the files that tokenizers, schedulers and configurations consist of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository at one revision, with all that the manifest wants of it.

    Attributes:
        half: whether half-precision variants are taken where the repository has them.
        files: names or patterns of the needed files; when empty, the files that diffusers' layout calls for.
        skip: components that nobody needs.
        licenses: licences that must be agreed to.
        gated: whether only accounts that accepted its terms are given the repository.
        users: pipelines and adapters that need it, in the manifest's order.
        sha256: (file name, SHA-256) of the files whose bytes the manifest fixes.
    """

    hub: str
    revision: str
    half: bool = False
    files: tuple[str, ...] = ()
    skip: frozenset[str] = frozenset()
    licenses: tuple[str, ...] = ()
    gated: bool = False
    users: tuple[str, ...] = ()
    sha256: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The name of the repository in the lock."""
        return f"{self.hub}@{self.revision}"

    @property
    def folder(self) -> str:
        """The repository's folder below the weights folder, in POSIX form."""
        return folder(self.hub, self.revision)


def folder(hub: str, revision: str) -> str:
    """The repository's folder below the weights folder, in POSIX form."""
    return hub if revision == "main" else f"{hub}@{revision.replace('/', '--')}"


@dataclass(frozen=True, slots=True)
class _Use:
    """One user's need of one repository; ``half`` is None where the user takes any precision."""

    user: str
    source: Source
    half: bool | None
    license: str
    skip: frozenset[str]


def repositories(manifest: Manifest, names: Collection[str] | None = None) -> list[Repository]:
    """Every hub repository that the manifest needs, each once.

    Two users of one repository share its folder: it holds the files of both, in half precision only when no
    user draws in full precision.

    Args:
        names: the pipelines and adapters whose repositories are wanted; None for all. A repository that is
            wanted holds what all its users need, also the ones that are not named.
    """
    uses: dict[tuple[str, str], list[_Use]] = {}
    for use in _uses(manifest):
        if use.source.hub is not None:
            uses.setdefault((use.source.hub, use.source.revision), []).append(use)
    found = [_merge(hub, revision, group) for (hub, revision), group in uses.items()]
    return [each for each in found if names is None or not set(names).isdisjoint(each.users)]


def _uses(manifest: Manifest) -> Iterator[_Use]:
    for name, entry in manifest.openable().items():
        for part, source in entry.parts.items():
            half = _in_half(entry) if source.half is None else source.half
            yield _Use(name, source, half, source.license or entry.license, _skipped(entry, part))
    for name, adapter in manifest.adapters():
        source = adapter.source
        yield _Use(name, source, source.half, source.license or adapter.license, frozenset(source.skip))
    for name, controlnet in manifest.controlnets.items():
        if controlnet.annotator is not None:
            source = controlnet.annotator
            yield _Use(name, source, None, source.license or controlnet.license, frozenset(source.skip))
    detector = manifest.pose_detector
    for name, open_pose in open_poses(manifest):
        if detector is not None and open_pose is None:
            for source in detector.sources:
                yield _Use(name, source, None, source.license or detector.license, frozenset(source.skip))


def _in_half(entry: PipelineEntry) -> bool:
    """Whether all networks of an entry run in half precision."""
    return all(entry.dtype_of(name) != "float32" for name in part_bytes(entry))


def _skipped(entry: PipelineEntry, part: str) -> frozenset[str]:
    """The components of a part that the entry does without: networks, and their tokenizers."""
    source = entry.parts[part]
    networks = [name for name, choice in entry.networks.items() if choice == "skip"]
    found = [entry.source_of(name) for name in networks]
    components = [place[1] for place in found if place is not None and place[0] is source and place[1]]
    return frozenset({*source.skip, *components, *map(tokenizer_of, components)})


def _merge(hub: str, revision: str, uses: list[_Use]) -> Repository:
    opinions = [use.half for use in uses if use.half is not None]
    whole = any(not use.source.files for use in uses)
    return Repository(
        hub=hub,
        revision=revision,
        half=bool(opinions) and all(opinions),
        files=() if whole else _unique(name for use in uses for name in use.source.files),
        skip=frozenset[str].intersection(*(use.skip for use in uses)),
        licenses=_unique(use.license for use in uses if use.license),
        gated=any(use.source.gated for use in uses),
        users=_unique(use.user for use in uses),
        sha256=tuple({pair for use in uses for pair in use.source.sha256.items()}),
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def components_of(index: Mapping[str, object]) -> list[str]:
    """The components that a model_index.json gives a class."""
    return [
        name
        for name, described in index.items()
        if isinstance(described, list) and cast("list[object]", described)[0] is not None
    ]


def select(
    listing: Collection[str], repository: Repository, components: Collection[str] | None
) -> dict[str, str]:
    """The files that are needed: the name in the repository -> the name on disk.

    Each network needs one set of weights: in half precision the fp16 variant when there is one, in full
    precision that variant only when there is nothing else, and safetensors before ``.bin``. The fp16 variant
    is stored under the plain name, so that whoever opens the folder needs not know of it; shards keep the
    names that their index lists. Explicit ``files`` are taken as they are.

    Args:
        listing: every file of the repository.
        components: the components of its model_index.json; None when it has none and is a single network.
    """
    if repository.files:
        matching = [
            name for name in listing if any(fnmatchcase(name, pattern) for pattern in repository.files)
        ]
        # PEFT's settings decide how strong its adapter is, whether or not somebody thought of naming them.
        beside = {_config_beside(name) for name in matching if _PEFT_WEIGHTS.search(name)} & {*listing}
        return {name: name for name in sorted({*matching, *beside})}
    if components is None:
        folders = {""}
        chosen: dict[str, str] = {}
    else:
        folders = {component for component in components if component not in repository.skip}
        chosen = {"model_index.json": "model_index.json"}
    for each in sorted(folders):
        prefix = f"{each}/" if each else ""
        names = [
            name.removeprefix(prefix)
            for name in listing
            if name.startswith(prefix) and "/" not in name[len(prefix) :]
        ]
        chosen |= {
            prefix + name: prefix + stored for name, stored in _select_in(names, repository.half).items()
        }
    return chosen


def peft_files(listing: Collection[str]) -> list[str]:
    """The files of an adapter that PEFT saved: tensors and settings, perhaps in a folder for each network.

    It is empty for a repository that has none.
    """
    folders = ("", *(f"{network}{end}/" for network in NETWORKS for end in ("", "_lora")))
    found = [f"{folder}adapter_model.safetensors" for folder in folders]
    there = [name for name in found if name in listing]
    if found[0] in there:
        there = [found[0]]
    return [name for each in there for name in (each, _config_beside(each)) if name in listing]


def _config_beside(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{CONFIG_NAME}"


def _select_in(names: Collection[str], half: bool) -> dict[str, str]:
    """The files of one component that are needed, as `select` gives them."""
    chosen = {
        name: name
        for name in names
        if name.endswith(_SMALL) and ".index." not in name and not name.startswith(".")
    }
    for variant, format_ in _preference(half):
        weights = {name: match for name in names if (match := _WEIGHTS.fullmatch(name))}
        taken = {
            name: match
            for name, match in weights.items()
            if match["format"] == format_ and bool(match["before"] or match["after"]) == variant
        }
        if not taken:
            continue
        if any(match["shard"] is None for match in taken.values()):
            taken = {name: match for name, match in taken.items() if match["shard"] is None}
            return chosen | {name: f"{match['stem']}.{format_}" for name, match in taken.items()}
        return chosen | {name: name for name in taken} | _index(names, variant, format_)
    return chosen


def _preference(half: bool) -> list[tuple[bool, str]]:
    """The acceptable sets of weights, best first: whether a set is the fp16 variant, and its format."""
    if half:
        return [(True, "safetensors"), (False, "safetensors"), (True, "bin"), (False, "bin")]
    return [(False, "safetensors"), (False, "bin"), (True, "safetensors"), (True, "bin")]


def _index(names: Collection[str], half: bool, format_: str) -> dict[str, str]:
    """The index of sharded weights, as `select` gives it."""
    for name in names:
        match = _INDEX.fullmatch(name)
        if match and match["format"] == format_ and bool(match["half"]) == half:
            return {name: f"{match['stem']}.{format_}.index.json"}
    return {}
