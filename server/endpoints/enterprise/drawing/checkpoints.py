"""What this dialect can draw with: checkpoints of the manifest, and noise schedulers."""

from __future__ import annotations

from pipelines.schedulers.names import NAMES
from pipelines.weights.kinds import STABLE_DIFFUSION_FAMILIES
from pipelines.weights.manifest import Manifest, PipelineEntry
from server.errors import NotFound

SCHEDULERS = NAMES


def checkpoints(manifest: Manifest) -> dict[str, PipelineEntry]:
    """model_id -> entry of every checkpoint that this dialect draws with."""
    return {
        name: entry for name, entry in manifest.pipelines.items() if entry.family in STABLE_DIFFUSION_FAMILIES
    }


def checkpoint(manifest: Manifest, model_id: str) -> PipelineEntry:
    """The entry of one of them.

    Raises:
        NotFound: there is none of that id.
    """
    entry = checkpoints(manifest).get(model_id)
    if entry is None:
        raise NotFound("Model id not found")
    return entry
