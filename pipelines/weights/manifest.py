"""weights.yaml, validated: what can be drawn, and where its weights come from. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.errors import UnknownPipeline
from pipelines.weights import choices
from pipelines.weights.kinds import Dtype, Family, Quantization, Section, StableDiffusionFamily
from pipelines.weights.local_sizes import numbers_in_file, numbers_in_folder
from pipelines.weights.networks import GIGABYTE, HALF_BYTES, NETWORKS

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHER_NAME = re.compile(r"(?=.{1,128}$)[^\s,]([^,\n]*[^\s,])?")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Named(_Entry):
    """The entry of something that requests name.

    Attributes:
        also: other names of it, such as callers bring along from where it was drawn with before.
    """

    also: tuple[str, ...] = ()

    @field_validator("also")
    @classmethod
    def _other_names(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        for name in also:
            if not _OTHER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: 1 to 128 characters, without blanks around or commas")
        return also


class Source(_Entry):
    """The source of one part of a pipeline: exactly one of hub, folder, file, dummy.

    Attributes:
        hub: a repository of the hub in ``owner/name`` form.
        revision: the branch, tag or commit of the repository.
        files: names or patterns of the repository's files that are needed; when empty, the files that
            diffusers' layout calls for.
        sha256: SHA-256 of the original files, by name, where the repository is somebody's copy.
        skip: components of a repository in diffusers' layout that are not needed.
        half: whether the repository's files in half precision are taken where there are some; None: as the
            dtype says in which the files are used.
        license: the licence, where it differs from the entry's.
        gated: whether the repository is given only to accounts that accepted its terms.
        folder: a folder in diffusers' layout, relative to the manifest.
        file: a ``.safetensors`` file of the original layout, relative to the manifest.
        config: the configuration of ``file``, by the name of one that ships with the project.
        dummy: name of a shipped configuration, for a full-size network of random numbers built on the device.
    """

    hub: str | None = None
    revision: str = "main"
    files: tuple[str, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict[str, str])
    skip: tuple[str, ...] = ()
    half: bool | None = None
    license: str = ""
    gated: bool = False
    folder: Path | None = None
    file: Path | None = None
    config: str | None = None
    dummy: str | None = None

    @field_validator("hub")
    @classmethod
    def _repository_name(cls, hub: str | None) -> str | None:
        if hub is not None and not _REPOSITORY.fullmatch(hub):
            raise ValueError(f"{hub!r} is not a repository in owner/name form")
        return hub

    @field_validator("revision")
    @classmethod
    def _revision_name(cls, revision: str) -> str:
        if not _REVISION.fullmatch(revision):
            raise ValueError(f"{revision!r} is not the name of a branch, tag or commit")
        return revision

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        given = [name for name in ("hub", "folder", "file", "dummy") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of hub, folder, file, dummy is needed, not {given or 'none'}")
        if (self.files or self.sha256 or self.skip or self.half is not None) and self.hub is None:
            raise ValueError("files, sha256, skip and half belong to a hub source")
        return self


class NetworkChoice(_Entry):
    """What is chosen for one network of a pipeline.

    Attributes:
        dtype: the dtype in which it runs; None: the entry's.
        quantize: the bits in which the matrices of a text encoder are kept; None: its dtype's.
    """

    dtype: Dtype | None = None
    quantize: Quantization | None = None


class PipelineEntry(_Named):
    """A pipeline that requests may name.

    Attributes:
        family: the module under ``pipelines/families`` that draws.
        parts: sources of the family's parts ("pipeline"; "prior" and "decoder"; "controlnet", "vae",
            "safety_checker", "annotator").
        dtype: the dtype in which the networks run.
        networks: choices for single networks, by the names of `pipelines.weights.networks`; ``skip`` draws
            without one, where the family can.
        memory: GB of each network in half precision, by the names of `pipelines.weights.networks`; those that
            are not named have the size that is usual in the family.
        license: the licence of all parts that name none themselves.
        resident: whether it is loaded at start and never evicted, instead of on demand.
    """

    family: Family
    parts: dict[str, Source]
    dtype: Dtype = "float16"
    networks: dict[str, NetworkChoice | Literal["skip"]] = Field(
        default_factory=dict[str, NetworkChoice | Literal["skip"]]
    )
    memory: dict[str, float] = Field(default_factory=dict[str, float])
    license: str = ""
    resident: bool = False

    @field_validator("networks", mode="before")
    @classmethod
    def _choices_in_words(cls, networks: object) -> object:
        return choices.in_words(networks)

    @field_validator("memory")
    @classmethod
    def _more_than_nothing(cls, memory: dict[str, float]) -> dict[str, float]:
        for name, gigabytes in memory.items():
            if not 0 < gigabytes < math.inf:
                raise ValueError(f"{name}: {gigabytes} is no size in GB")
        return memory

    @model_validator(mode="after")
    def _memory_of_its_networks(self) -> PipelineEntry:
        choices.demand_networks(self.family, [*self.memory, *self.networks])
        return self

    @model_validator(mode="after")
    def _choices_that_can_be_made(self) -> PipelineEntry:
        for name, choice in self.networks.items():
            if choice == "skip":
                choices.demand_optional(self.family, name)
            elif choice.quantize is not None:
                choices.demand_text_encoder(self.family, name)
        return self

    def dtype_of(self, network: str) -> Dtype:
        """The dtype in which a network runs."""
        choice = self.networks.get(network)
        return (choice.dtype if isinstance(choice, NetworkChoice) else None) or self.dtype

    def quantization_of(self, network: str) -> Quantization | None:
        """The bits in which a network's matrices are kept; None: those of its dtype."""
        choice = self.networks.get(network)
        return choice.quantize if isinstance(choice, NetworkChoice) else None

    def skips(self, network: str) -> bool:
        """Whether the pipeline is drawn without this network of its family."""
        if self.networks.get(network) == "skip":
            return True
        source, component = self.source_of(network) or (None, None)
        return source is not None and component in source.skip

    def source_of(self, network: str) -> tuple[Source, str | None] | None:
        """The source of a network, and the folder in it, None where it is all of the source.

        Returns None where the entry has no source for the network.
        """
        part, _, component = network.rpartition(".")
        if part:
            return (self.parts[part], component) if part in self.parts else None
        if network in self.parts:
            return self.parts[network], None
        if "pipeline" in self.parts and network not in NETWORKS[self.family].optional:
            return self.parts["pipeline"], network
        return None

    def with_local_sizes(self, folder: Path) -> PipelineEntry:
        """This entry with the sizes of those networks that are here and whose ``memory`` is not said.

        Args:
            folder: where relative sources start.
        """
        found = dict(self.memory)
        for network in NETWORKS[self.family].numbers:
            numbers = None if network in found else self._local_numbers(network, folder)
            if numbers:
                found[network] = numbers * HALF_BYTES / GIGABYTE
        return self if found == self.memory else self.model_copy(update={"memory": found})

    def _local_numbers(self, network: str, folder: Path) -> int | None:
        source, component = self.source_of(network) or (None, None)
        if source is None:
            return None
        if source.file is not None:
            return numbers_in_file(folder / source.file, component)
        if source.folder is not None:
            return numbers_in_folder(folder / source.folder / (component or ""))
        return None

    @property
    def gated(self) -> bool:
        """Whether any of its repositories is given only to accounts that accepted its terms."""
        return any(source.gated for source in self.parts.values())


class ImageNetworkEntry(_Named):
    """A network that makes a picture of a picture, without a prompt.

    Attributes:
        source: a ``.safetensors`` or ``.pth`` file of any architecture that spandrel knows.
        dtype: the dtype in which the network runs, if its architecture can; otherwise that is float32.
        memory, license, resident: the same as in `PipelineEntry`.
    """

    source: Source
    dtype: Dtype = "float16"
    memory: dict[str, float] = Field(default_factory=dict[str, float])
    license: str = ""
    resident: bool = False

    def as_pipeline(self) -> PipelineEntry:
        """The pipeline as which the network is opened, kept resident and pulled."""
        raise NotImplementedError

    def _as(self, family: Family, parts: dict[str, Source]) -> PipelineEntry:
        return PipelineEntry(
            family=family,
            parts=parts,
            dtype=self.dtype,
            memory=self.memory,
            license=self.license,
            resident=self.resident,
            also=self.also,
        )


class UpscalerEntry(ImageNetworkEntry):
    """A network that enlarges pictures; its scale is read from its tensors."""

    def as_pipeline(self) -> PipelineEntry:
        return self._as("upscaler", {"upscaler": self.source})


class FaceRestorerEntry(ImageNetworkEntry):
    """A network that draws faces anew.

    Attributes:
        detector: YuNet's ONNX file, which finds the faces. Without it only faces that are upright and look
            into the camera are found.
    """

    detector: Source | None = None

    def as_pipeline(self) -> PipelineEntry:
        finder = {} if self.detector is None else {"detector": self.detector}
        return self._as("face_restorer", {"face_restorer": self.source, **finder})


class AdapterEntry(_Named):
    """A LoRA, textual inversion or VAE that requests may name.

    Attributes:
        family: the family that it was made for.
    """

    source: Source
    family: StableDiffusionFamily
    license: str = ""


Preprocessor = Literal[
    "canny",
    "depth",
    "hed",
    "inpaint",
    "lineart",
    "lineart_anime",
    "lineart_standard",
    "mlsd",
    "normal",
    "openpose",
    "pidi",
    "scribble",
    "shuffle",
    "zoe",
]
"""The preprocessors that can make a ControlNet's control image of a picture; inpaint, of its mask as well."""


class ControlNetEntry(AdapterEntry):
    """A ControlNet that requests may name.

    Attributes:
        preprocessor: makes its control image of a picture; None: it takes pictures as they are.
        annotator: a folder with the weights of the preprocessor, where it needs some.
    """

    preprocessor: Preprocessor | None = None
    annotator: Source | None = None


class PoseDetectorEntry(_Entry):
    """A detector of poses under a free licence, for whoever does not accept that of OpenPose.

    Attributes:
        people: a detector of transformers that finds persons, such as RT-DETR.
        joints: a ViTPose, which finds COCO's 17 joints in each of them.
        license: the licence of a source that names none itself.
    """

    people: Source
    joints: Source
    license: str = ""

    @property
    def sources(self) -> tuple[Source, Source]:
        """Both of its sources."""
        return self.people, self.joints


class Manifest(_Entry):
    """All that weights.yaml says; relative sources start at ``path``, the file that was read."""

    path: Path = Path()
    pipelines: dict[str, PipelineEntry]
    loras: dict[str, AdapterEntry] = Field(default_factory=dict)
    embeddings: dict[str, AdapterEntry] = Field(default_factory=dict)
    vaes: dict[str, AdapterEntry] = Field(default_factory=dict)
    controlnets: dict[str, ControlNetEntry] = Field(default_factory=dict)
    upscalers: dict[str, UpscalerEntry] = Field(default_factory=dict)
    face_restorers: dict[str, FaceRestorerEntry] = Field(default_factory=dict)
    pose_detector: PoseDetectorEntry | None = None

    @model_validator(mode="after")
    def _one_name_each(self) -> Manifest:
        names = [*self.pipelines, *self.upscalers, *self.face_restorers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))}: named twice among what can be opened")
        return self

    @model_validator(mode="after")
    def _other_names_are_free(self) -> Manifest:
        ids = {name for name, _ in self.named()}
        claimed = dict[str, str]()
        for name, entry in self.named():
            for other in entry.also:
                if other in ids:
                    raise ValueError(f"{name}: {other} is the name of an entry, and none of its other names")
                if other in claimed:
                    raise ValueError(f"{other}: claimed by {claimed[other]} and by {name}")
                claimed[other] = name
        return self

    def named(self) -> Iterator[tuple[str, PipelineEntry | ImageNetworkEntry | AdapterEntry]]:
        """Every entry that requests may name, with its name, in all sections."""
        yield from self.pipelines.items()
        yield from self.adapters()
        yield from self.upscalers.items()
        yield from self.face_restorers.items()

    def id_of(self, name: str) -> str:
        """The name of the entry that has this other name; any other text stays as it is."""
        return next((id_ for id_, entry in self.named() if name in entry.also), name)

    def pipeline(self, name: str) -> PipelineEntry:
        """The entry of that name.

        Raises:
            UnknownPipeline: there is none.
        """
        openable = self.openable()
        if name not in openable:
            raise UnknownPipeline(f"{name} is not a pipeline of this server")
        return openable[name]

    def openable(self) -> dict[str, PipelineEntry]:
        """Pipelines, upscalers and face restorers by name; the device's memory is divided among them."""
        others = {**self.upscalers, **self.face_restorers}
        return {**self.pipelines, **{name: each.as_pipeline() for name, each in others.items()}}

    def with_entry(self, section: Section, name: str, entry: PipelineEntry | AdapterEntry) -> Manifest:
        """A copy of this manifest that has the entry, too."""
        return self.model_copy(update={section: {**getattr(self, section), name: entry}})

    def first_of(self, family: str) -> str | None:
        """The name of the first pipeline of a family; None if there is none."""
        return next((name for name, entry in self.pipelines.items() if entry.family == family), None)

    def adapters(self) -> Iterator[tuple[str, AdapterEntry]]:
        """Every LoRA, textual inversion, VAE and ControlNet with its name."""
        for kind in (self.loras, self.embeddings, self.vaes, self.controlnets):
            yield from kind.items()

    def annotator(self, preprocessor: str) -> Source | None:
        """The weights of a preprocessor, from the first ControlNet that brings them; None if none does."""
        for entry in self.controlnets.values():
            if entry.preprocessor == preprocessor and entry.annotator is not None:
                return entry.annotator
        return None


def load_manifest(path: Path) -> Manifest:
    """Read weights.yaml and validate it.

    Raises:
        pydantic.ValidationError: an entry is wrong; the error names the place and the reason.
        ValueError, yaml.YAMLError: it is no mapping, or no YAML.
    """
    return parse_manifest(path.read_text(), path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Validate what weights.yaml says.

    Args:
        path: the file that the text is from, at which relative sources start.
    Raises:
        ValueError, yaml.YAMLError: as for `load_manifest`.
    """
    content: object = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no mapping of sections")
    manifest = Manifest.model_validate({**cast("dict[str, object]", content), "path": path.resolve()})
    entries = {name: entry.with_local_sizes(path.parent) for name, entry in manifest.pipelines.items()}
    return manifest.model_copy(update={"pipelines": entries})
