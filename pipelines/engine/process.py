"""The engine process: one device, one pool, one loop, between a pipe's commands and its events."""

from __future__ import annotations

from multiprocessing.connection import Connection, wait

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from pipelines.denoising.loop import Loop
from pipelines.engine.host_memory import reuse_freed_memory
from pipelines.engine.loader import Loader
from pipelines.engine.pool import PipelinePool
from pipelines.engine.watch import Watch
from pipelines.messages import (
    Cancel,
    ClearCache,
    Done,
    Draw,
    EngineConfig,
    Ready,
    Reload,
    Stop,
    TooLarge,
)
from pipelines.weights.loaded import ManifestReader, load_full_manifest
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import budget_bytes as weights_budget

PAUSE_S = 0.0005
"""The seconds for which a device that is two steps behind is left alone, unless a command comes."""


def open_pool(config: EngineConfig, manifest: Manifest | None = None) -> PipelinePool:
    """Open the pool that a configuration describes; on a CPU, let this process reuse freed memory.

    Args:
        manifest: None: read what the configuration names.
    """
    device = torch.device(config.device)
    if device.type == "cpu":
        reuse_freed_memory()
    manifest = manifest or load_full_manifest(config.manifest, config.weights)
    budget_bytes, device_bytes = config.budget_bytes, None
    if budget_bytes is None:
        device_bytes = torch.cuda.get_device_properties(device).total_memory
        budget_bytes = weights_budget(manifest, device_bytes)
    return PipelinePool(
        manifest,
        config.weights,
        device,
        budget_bytes=budget_bytes,
        host_budget_bytes=config.host_budget_bytes,
        device_bytes=device_bytes,
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
    watch = Watch(connection, pool, preload=config.preload)
    watch.tell()
    watch.look({})
    watch.tell()
    loads = Loader(pool, lambda: not loop.idle)
    loop = Loop(pool, config.group_pixels, device=device, loader=loads)
    watch.loads = loads
    connection.send(TooLarge(pool.too_large()))
    connection.send(Ready(config.device, pool.resident, pool.budget_bytes))
    while True:
        for events in loop.turn_in_parts():
            for event in events:
                connection.send(event)
            watch.tell()
            while connection in wait([connection, loads.fileno()], _pause_s(loop, watch)):
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
                        connection.send(TooLarge(pool.too_large()))
                        connection.send(Done(maintenance_id))
                    case Stop():
                        return
        if watch.is_due:
            watch.look(loop.in_use)


def _pause_s(loop: Loop, watch: Watch) -> float:
    """The seconds for which a command is waited for before the engine goes on."""
    if loop.idle:
        return watch.pause_s
    return PAUSE_S if loop.device_is_behind else 0.0
