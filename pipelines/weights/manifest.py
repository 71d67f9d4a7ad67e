"""weights.yaml, validated: what can be drawn, and where its weights come from. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.errors import UnknownPipeline
from pipelines.weights.entries import (
    AdapterEntry,
    ControlNetEntry,
    FaceRestorerEntry,
    ImageNetworkEntry,
    PipelineEntry,
    PoseDetectorEntry,
    Source,
    UpscalerEntry,
)
from pipelines.weights.kinds import LocalSection


class Manifest(BaseModel):
    """All that weights.yaml says; relative sources start at ``path``, the file that was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def with_entry(
        self, section: LocalSection, name: str, entry: PipelineEntry | ImageNetworkEntry | AdapterEntry
    ) -> Manifest:
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
    opened = (manifest.pipelines, manifest.upscalers, manifest.face_restorers)
    pipelines, upscalers, face_restorers = (
        {name: entry.with_local_sizes(path.parent) for name, entry in section.items()} for section in opened
    )
    return manifest.model_copy(
        update={"pipelines": pipelines, "upscalers": upscalers, "face_restorers": face_restorers}
    )
