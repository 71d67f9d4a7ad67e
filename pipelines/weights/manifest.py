"""weights.yaml, validated: what can be drawn, and where its weights come from. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.errors import UnknownPipeline

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Entry):
    """Where one part of a pipeline comes from: exactly one of hub, folder, file, dummy.

    Attributes:
        hub: repository in ``owner/name`` form, with ``revision``.
        files: of a hub repository, the file names or patterns that are needed; empty: what diffusers' layout
            calls for.
        sha256: of a hub repository that is somebody's copy, by file name: the hash of the original.
        skip: of a hub repository in diffusers' layout, the components that are not needed.
        license: where it differs from the entry's.
        gated: the repository is given only to accounts that accepted its terms.
        folder: a diffusers-layout folder, relative to the manifest.
        file: one ``.safetensors`` of the original layout, relative to the manifest; ``config`` names a
            pipeline configuration that ships with the project.
        dummy: name of a shipped configuration; a full-size network of random numbers, built on the device.
    """

    hub: str | None = None
    revision: str = "main"
    files: tuple[str, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict[str, str])
    skip: tuple[str, ...] = ()
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
        if (self.files or self.sha256 or self.skip) and self.hub is None:
            raise ValueError("files, sha256 and skip belong to a hub source")
        return self


class PipelineEntry(_Entry):
    """One pipeline.

    Attributes:
        family: module under ``pipelines/families``.
        parts: the family's parts ("pipeline"; "prior" and "decoder"; "controlnet", "vae", "safety_checker",
            "annotator").
        dtype: in which the networks run.
        vram_gb: peak with one picture at the default size where ``vram_measured``; else what the weights
            alone take in ``dtype``, computed from the parameter counts. None: unknown.
        resident: loaded at start and never evicted; otherwise on demand.
    """

    family: Literal[
        "face_restorer",
        "kandinsky22",
        "kolors",
        "mbart50",
        "prompt_writer",
        "sd15",
        "sd3_pose",
        "sdxl",
        "upscaler",
    ]
    parts: dict[str, Source]
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    vram_gb: float | None = None
    vram_measured: bool = False
    license: str = ""
    resident: bool = False

    @property
    def gated(self) -> bool:
        """Whether any of its repositories is given only to accounts that accepted its terms."""
        return any(source.gated for source in self.parts.values())


class ImageNetworkEntry(_Entry):
    """A network that makes a picture of a picture, without a prompt.

    Attributes:
        source: one file, ``.safetensors`` or ``.pth``, of any architecture that spandrel knows.
        dtype: fp32 is taken where the architecture cannot do this one.
        vram_gb, license, resident: as for a pipeline.
    """

    source: Source
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    vram_gb: float | None = None
    license: str = ""
    resident: bool = False

    def as_pipeline(self) -> PipelineEntry:
        """How it is opened, resident and pulled."""
        raise NotImplementedError

    def _as(self, family: Literal["upscaler", "face_restorer"], parts: dict[str, Source]) -> PipelineEntry:
        return PipelineEntry(
            family=family,
            parts=parts,
            dtype=self.dtype,
            vram_gb=self.vram_gb,
            license=self.license,
            resident=self.resident,
        )


class UpscalerEntry(ImageNetworkEntry):
    """A network that enlarges pictures; what scale it has is read from its tensors."""

    def as_pipeline(self) -> PipelineEntry:
        return self._as("upscaler", {"upscaler": self.source})


class FaceRestorerEntry(ImageNetworkEntry):
    """A network that draws faces anew.

    Attributes:
        detector: YuNet's ONNX file, which finds the faces; without it only upright ones that look into the
            camera are found.
    """

    detector: Source | None = None

    def as_pipeline(self) -> PipelineEntry:
        finder = {} if self.detector is None else {"detector": self.detector}
        return self._as("face_restorer", {"face_restorer": self.source, **finder})


class AdapterEntry(_Entry):
    """A LoRA, textual inversion or VAE that requests may name.

    Attributes:
        family: the family that it was made for.
    """

    source: Source
    family: Literal["sd15", "sdxl"]
    license: str = ""


Preprocessor = Literal[
    "canny",
    "depth",
    "hed",
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
"""The preprocessors that can make a ControlNet's control image of a picture."""


class ControlNetEntry(AdapterEntry):
    """A ControlNet that requests may name.

    Attributes:
        preprocessor: makes its control image of a picture; None: it takes pictures as they are.
        annotator: a folder with the weights of the preprocessor, where it needs some.
    """

    preprocessor: Preprocessor | None = None
    annotator: Source | None = None


class Manifest(_Entry):
    """A whole weights.yaml. ``path`` is where it was read; relative sources start there."""

    path: Path = Path()
    pipelines: dict[str, PipelineEntry]
    loras: dict[str, AdapterEntry] = Field(default_factory=dict)
    embeddings: dict[str, AdapterEntry] = Field(default_factory=dict)
    vaes: dict[str, AdapterEntry] = Field(default_factory=dict)
    controlnets: dict[str, ControlNetEntry] = Field(default_factory=dict)
    upscalers: dict[str, UpscalerEntry] = Field(default_factory=dict)
    face_restorers: dict[str, FaceRestorerEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_name_each(self) -> Manifest:
        names = [*self.pipelines, *self.upscalers, *self.face_restorers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))}: named twice among what can be opened")
        return self

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
        """Pipelines, upscalers and face restorers by name: what the device's memory is divided among."""
        others = {**self.upscalers, **self.face_restorers}
        return {**self.pipelines, **{name: each.as_pipeline() for name, each in others.items()}}

    def first_of(self, family: str) -> str | None:
        """The name of the first pipeline of a family; None: there is none."""
        return next((name for name, entry in self.pipelines.items() if entry.family == family), None)

    def adapters(self) -> Iterator[tuple[str, AdapterEntry]]:
        """Every LoRA, textual inversion, VAE and ControlNet with its name."""
        for kind in (self.loras, self.embeddings, self.vaes, self.controlnets):
            yield from kind.items()

    def annotator(self, preprocessor: str) -> Source | None:
        """The weights of a preprocessor, of whatever ControlNet brings them."""
        for entry in self.controlnets.values():
            if entry.preprocessor == preprocessor and entry.annotator is not None:
                return entry.annotator
        return None


def load_manifest(path: Path) -> Manifest:
    """Read and validate.

    Raises:
        pydantic.ValidationError: with the place and the reason.
    """
    return Manifest.model_validate({**yaml.safe_load(path.read_text()), "path": path.resolve()})
