"""The entries of weights.yaml: one thing each that can be drawn with, and where its weights come from."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.weights import choices
from pipelines.weights.kinds import Dtype, Family, Quantization, StableDiffusionFamily
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

    def with_local_sizes(self, folder: Path) -> Self:
        """This entry with the size of its network where that is here and not said, as in `PipelineEntry`."""
        return self.model_copy(update={"memory": self.as_pipeline().with_local_sizes(folder).memory})

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
