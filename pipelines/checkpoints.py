"""Open what the manifest names: diffusers pipelines and single networks, from whatever source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline, ModelMixin

from pipelines.manifest import Manifest, PipelineEntry, Source

P = TypeVar("P", bound=DiffusionPipeline)
M = TypeVar("M", bound=ModelMixin)


@dataclass(frozen=True)
class Checkpoint:
    """A manifest entry that can be opened on one device.

    Attributes:
        weights: folder of downloaded repositories and the lock.
    """

    manifest: Manifest
    entry: PipelineEntry
    weights: Path
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.entry.dtype)

    def has(self, part: str) -> bool:
        """Whether the manifest gives this optional part."""
        return part in self.entry.parts

    def folder(self, part: str) -> Path:
        """The local folder of a part that is not opened by diffusers (OpenPose's annotators)."""
        return self._local(self.entry.parts[part])

    def pipeline(self, part: str, cls: type[P], **components: Any) -> P:
        """Open a diffusers pipeline; ``components`` replace the ones of the checkpoint (None: leave out)."""
        opened = cls.from_pretrained(self.folder(part), torch_dtype=self.dtype, **components)
        opened.set_progress_bar_config(disable=True)
        return opened.to(self.device)

    def module(self, part: str, cls: type[M]) -> M:
        """Open a single diffusers network."""
        return cls.from_pretrained(self.folder(part), torch_dtype=self.dtype).to(self.device)

    def _local(self, source: Source) -> Path:
        assert source.folder is not None
        return self.manifest.path.parent / source.folder
