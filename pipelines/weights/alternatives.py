"""What a manifest names under a free licence for whoever does not accept another one. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.weights.entries import Source
from pipelines.weights.manifest import Manifest


def with_free_alternatives(manifest: Manifest) -> Manifest:
    """A manifest without OpenPose, in whose place ``pose_detector`` is; itself, where it names none."""
    if manifest.pose_detector is None:
        return manifest
    posed = {name for name, _ in open_poses(manifest)}
    pipelines = {
        name: entry.model_copy(
            update={"parts": {part: each for part, each in entry.parts.items() if part != "annotator"}}
        )
        if name in posed
        else entry
        for name, entry in manifest.pipelines.items()
    }
    controlnets = {
        name: entry.model_copy(update={"annotator": None}) if name in posed else entry
        for name, entry in manifest.controlnets.items()
    }
    return manifest.model_copy(update={"pipelines": pipelines, "controlnets": controlnets})


def open_poses(manifest: Manifest) -> Iterator[tuple[str, Source | None]]:
    """The names of all that needs a pose detector, each with the OpenPose that its entry has."""
    for name, entry in manifest.pipelines.items():
        if entry.family == "sd3_pose":
            yield name, entry.parts.get("annotator")
    for name, controlnet in manifest.controlnets.items():
        if controlnet.preprocessor == "openpose":
            yield name, controlnet.annotator
