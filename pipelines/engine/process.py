"""The engine process: one device, one pool, one loop, between a pipe's commands and its events."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from multiprocessing.connection import Connection

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from pipelines.denoising.loop import Loop
from pipelines.engine.host_memory import reuse_freed_memory
from pipelines.engine.pool import PipelinePool
from pipelines.errors import GenerationError
from pipelines.messages import (
    Absences,
    Absent,
    Cancel,
    ClearCache,
    Done,
    Draw,
    EngineConfig,
    Loading,
    Ready,
    Reload,
    Stop,
)
from pipelines.weights.loaded import ManifestReader, load_full_manifest
from pipelines.weights.manifest import Manifest

log = logging.getLogger(__name__)

CUDA_SHARE = 0.8
"""The part of a CUDA device's memory that weights may take without a budget; activations need the rest."""


LOOK_S = 2.0
"""The seconds between two looks whether weights came or went; a look takes some milliseconds."""


def open_pool(config: EngineConfig, manifest: Manifest | None = None) -> PipelinePool:
    """Open the pool that a configuration describes; on a CPU, let this process reuse freed memory.

    Args:
        manifest: None: read what the configuration names.
    """
    device = torch.device(config.device)
    if device.type == "cpu":
        reuse_freed_memory()
    budget_bytes = config.budget_bytes
    if budget_bytes is None:
        budget_bytes = int(torch.cuda.get_device_properties(device).total_memory * CUDA_SHARE)
    return PipelinePool(
        manifest or load_full_manifest(config.manifest, config.weights),
        config.weights,
        device,
        budget_bytes=budget_bytes,
        host_budget_bytes=config.host_budget_bytes,
    )


def serve(connection: Connection, config: EngineConfig) -> None:
    """Run the engine process: answer commands with events until `Stop`, or until the other end is gone.

    Raises:
        torch.AcceleratorError: the device is unusable; the process is to be replaced.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    device = torch.device(config.device)
    if device.type == "cuda" and device.index is not None:
        # Whatever names no device (streams, library workspaces) would open a context on the first one.
        torch.cuda.set_device(device)
    reader = ManifestReader(config.manifest, config.weights, config.manifest_text)
    pool = open_pool(config, reader.read())
    watch = _Watch(connection, pool, preload=config.preload)
    watch.tell()
    watch.look(in_use=())
    loop = Loop(pool, config.group_pixels, device=device)
    connection.send(Ready(config.device, pool.resident))
    while True:
        while connection.poll(watch.pause_s if loop.idle else 0.0):
            try:
                command = connection.recv()
            except EOFError:
                return
            match command:
                case Draw(ticket_id, request):
                    loop.submit(ticket_id, request)
                case Cancel(ticket_id):
                    loop.cancel(ticket_id)
                case ClearCache(maintenance_id):
                    pool.clear_cache()
                    connection.send(Done(maintenance_id))
                case Reload(maintenance_id):
                    pool.reload(reader.read())
                    connection.send(Done(maintenance_id))
                case Stop():
                    return
        if not watch.pause_s:
            watch.look(loop.in_use)
        if not loop.idle:
            for event in loop.turn():
                connection.send(event)
        watch.tell()


class _Watch:
    """Tells the server what cannot be drawn with, and opens pinned pipelines as soon as they can be."""

    def __init__(self, connection: Connection, pool: PipelinePool, *, preload: bool) -> None:
        self._connection = connection
        self._pool = pool
        self._preload = preload
        self._told: tuple[Absent, ...] = ()
        self._next_s = 0.0
        self._preloaded: set[str] = set()

    @property
    def pause_s(self) -> float:
        """The seconds until the next look is due."""
        return max(0.0, self._next_s - time.monotonic())

    def tell(self) -> None:
        """Send the absences if they have changed."""
        absences = self._pool.absences
        if absences != self._told:
            self._told = absences
            self._connection.send(Absences(absences))

    def look(self, in_use: Collection[str]) -> None:
        """Look whether weights came or went; where nothing is drawn, open what is pinned and was not yet."""
        self._pool.look(in_use)
        for name in self._pool.pinned() if self._preload else ():
            if self._pool.lacks(name):
                self._preloaded.discard(name)
            elif name not in self._preloaded and not in_use:
                self._preloaded.add(name)
                self._open(name)
        self._next_s = time.monotonic() + LOOK_S

    def _open(self, name: str) -> None:
        """Open a pinned pipeline. One that does not open is told, and stops nothing else."""
        self._connection.send(Loading(name))
        try:
            self._pool.open(name)
        except GenerationError as error:
            log.error("%s was not loaded at the start: %s", name, error)
