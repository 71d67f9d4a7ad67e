"""Checkpoints of the manifest that this dialect draws with, and the adapters that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipelines.weights.entries import AdapterEntry, PipelineEntry
from pipelines.weights.kinds import STABLE_DIFFUSION_FAMILIES
from pipelines.weights.manifest import Manifest
from server.errors import FieldError, NotFound


def checkpoints(manifest: Manifest) -> dict[str, PipelineEntry]:
    """The entry of every checkpoint that this dialect draws with, by its model_id."""
    return {
        name: entry for name, entry in manifest.pipelines.items() if entry.family in STABLE_DIFFUSION_FAMILIES
    }


def checkpoint(manifest: Manifest, model_id: str) -> PipelineEntry:
    """The entry of one checkpoint, by its id or another name of it.

    Raises:
        NotFound: there is none of that id.
    """
    entry = checkpoints(manifest).get(manifest.id_of(model_id))
    if entry is None:
        raise NotFound("Model id not found")
    return entry


def default_checkpoint(manifest: Manifest) -> str:
    """The model_id that is meant where a page has none: the first checkpoint that is loaded at the start,
    else the first one.

    Raises:
        NotFound: the manifest has no checkpoint that this dialect draws with.
    """
    known = checkpoints(manifest)
    name = next((name for name, entry in known.items() if entry.resident), next(iter(known), None))
    if name is None:
        raise NotFound("This server has no checkpoint: weights.yaml names none of Stable Diffusion")
    return name


def check_adapters(
    field: str, names: Iterable[str], known: Mapping[str, AdapterEntry], entry: PipelineEntry
) -> None:
    """Look whether this server has the adapters that a field names, and whether they fit a checkpoint.

    Raises:
        FieldError: an adapter is unknown, or was made for another family.
    """
    for name in names:
        if name not in known:
            raise FieldError(field, f"{name} is not on this server")
        if known[name].family != entry.family:
            raise FieldError(field, f"{name} was made for another kind of checkpoint")
