"""The families by name: one file for each, none of which imports another; SD1.5 and SDXL share a core."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pipelines.weights.kinds import Family

if TYPE_CHECKING:
    from pipelines.adapters.library import AdapterLibrary
    from pipelines.checkpoints.checkpoint import Checkpoint
    from pipelines.denoising.pipeline import Pipeline

FAMILIES: Mapping[Family, str] = {
    "face_restorer": "FaceRestorer",
    "kandinsky22": "Kandinsky22",
    "kolors": "Kolors",
    "mbart50": "MBart50",
    "prompt_writer": "PromptWriter",
    "sd15": "StableDiffusion15",
    "sd3_pose": "StableDiffusion3Pose",
    "sdxl": "StableDiffusionXL",
    "upscaler": "Upscaler",
}
"""The class of each family; its module in this folder has the family's name."""


def open_pipeline(checkpoint: Checkpoint, adapters: AdapterLibrary) -> Pipeline:
    """Open a checkpoint with the family that its manifest entry names.

    Raises:
        CheckpointUnavailable: files are missing or differ from the verified ones.
    """
    family = checkpoint.entry.family
    cls = getattr(import_module(f"pipelines.families.{family}"), FAMILIES[family])
    return cls.open(checkpoint, adapters)
