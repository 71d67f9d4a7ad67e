"""weights.yaml, validated: what can be drawn, and where its weights come from. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.errors import UnknownPipeline


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Entry):
    """Where one part of a pipeline comes from: exactly one of hub, folder, file, dummy.

    Attributes:
        hub: repository in ``owner/name`` form, with ``revision``.
        folder: a diffusers-layout folder, relative to the manifest.
        file: one ``.safetensors`` of the original layout, relative to the manifest; ``config`` names a pipeline
            configuration that ships with the project.
        dummy: name of a shipped configuration; a full-size network of random numbers, built on the device.
    """

    hub: str | None = None
    revision: str = "main"
    folder: Path | None = None
    file: Path | None = None
    config: str | None = None
    dummy: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        given = [name for name in ("hub", "folder", "file", "dummy") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of hub, folder, file, dummy is needed, not {given or 'none'}")
        return self


class PipelineEntry(_Entry):
    """One pipeline.

    Attributes:
        family: module under ``pipelines/families``.
        parts: the family's parts ("pipeline"; "prior" and "decoder"; "controlnet", "vae", "safety_checker", "annotator").
        dtype: in which the networks run.
        vram_gb: measured peak with one picture at the default size; None where not measured.
        resident: loaded at start and never evicted; otherwise on demand.
    """

    family: Literal["kandinsky22", "kolors", "sd15", "sd3_pose", "sdxl"]
    parts: dict[str, Source]
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    vram_gb: float | None = None
    license: str = ""
    gated: bool = False
    resident: bool = False


class AdapterEntry(_Entry):
    """A LoRA, textual inversion or VAE that requests may name.

    Attributes:
        family: the family that it was made for.
    """

    source: Source
    family: Literal["sd15", "sdxl"]
    license: str = ""


class Manifest(_Entry):
    """A whole weights.yaml. ``path`` is where it was read; relative sources start there."""

    path: Path = Path()
    pipelines: dict[str, PipelineEntry]
    loras: dict[str, AdapterEntry] = Field(default_factory=dict)
    embeddings: dict[str, AdapterEntry] = Field(default_factory=dict)
    vaes: dict[str, AdapterEntry] = Field(default_factory=dict)

    def pipeline(self, name: str) -> PipelineEntry:
        """The entry of that name.

        Raises:
            UnknownPipeline: there is none.
        """
        if name not in self.pipelines:
            raise UnknownPipeline(f"{name} is not a pipeline of this server")
        return self.pipelines[name]


def load_manifest(path: Path) -> Manifest:
    """Read and validate.

    Raises:
        pydantic.ValidationError: with the place and the reason.
    """
    return Manifest.model_validate({**yaml.safe_load(path.read_text()), "path": path.resolve()})
