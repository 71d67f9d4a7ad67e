"""Open a checkpoint of a pool, in the loop's thread or beside it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.checkpoints.pace import Pace
from pipelines.engine.parts import Anywhere, Opened, own_tensors
from pipelines.errors import CheckpointUnavailable, GenerationError, is_out_of_memory
from pipelines.families.registry import open_pipeline
from pipelines.weights.absence import remedy
from pipelines.weights.manifest import Manifest

log = logging.getLogger(__name__)


class Opening:
    """Opens checkpoints for one device; nothing of it changes, so that any thread may do it.

    Args:
        moves: parts have a place of their own, and are opened on the host.
    """

    def __init__(self, weights: Path, device: torch.device, adapters: AdapterLibrary, *, moves: bool) -> None:
        self._weights = weights
        self._device = device
        self._adapters = adapters
        self._moves = moves

    def open(self, name: str, manifest: Manifest, pace: Pace) -> Opened:
        """Open a pipeline.

        Raises:
            UnknownPipeline: not in the manifest.
            CheckpointUnavailable: its weights are missing or differ from the verified ones.
        """
        entry = manifest.pipeline(name)
        opened_on = torch.device("cpu") if self._moves and self._device.type != "meta" else self._device
        checkpoint = Checkpoint(name, manifest, entry, self._weights, self._device, opened_on, pace)
        try:
            pipeline = open_pipeline(checkpoint, self._adapters)
        except (GenerationError, torch.AcceleratorError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.exception("%s cannot be opened", name)
            source = next(iter(entry.parts.values()))
            raise CheckpointUnavailable(
                f"{name} cannot be opened, the log says why", remedy(name, source, self._weights)
            ) from error
        return Opened.of(name, pipeline, self._place_of, checkpoint.readers)

    def _place_of(self, module: torch.nn.Module) -> Anywhere:
        """Where a network is that was just opened; a pose detector opens on the device at once."""
        if not self._moves:
            return "device"
        near = self._device.type in ("cpu", "meta")  # there a mover moves in name alone
        there = {tensor.device.type for tensor in own_tensors(module)} == {self._device.type}
        return "device" if there and not near else "host"
