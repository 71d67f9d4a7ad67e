"""The engines of this machine: one per device, found without importing torch."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipelines.messages import EngineConfig
from server.engines.process import LocalEngine
from server.settings import Settings

CPU_BUDGET_GB = 8.0
CPU_GROUP_MEGAPIXELS, CUDA_GROUP_MEGAPIXELS = 4.0, 16.0

MEGAPIXEL = 1024 * 1024
"""The pixels of a megapixel in the settings: four pictures of 512x512."""

_DEVICE = re.compile(r"[a-z]+(:\d+)?")
_CUDA_NODE = re.compile(r"nvidia\d+")


def local_engines(settings: Settings) -> list[LocalEngine]:
    """One engine, not yet started, for each device that the settings ask for.

    Raises:
        ValueError: ``devices`` is not ``auto`` or a comma list of torch devices.
    """
    configs = engine_configs(settings)
    copies: Counter[str] = Counter()
    engines: list[LocalEngine] = []
    for config in configs:
        copies[config.device] += 1
        copy = copies[config.device]
        name = config.device if copy == 1 else f"{config.device} #{copy}"
        engines.append(LocalEngine(config, name=name, silence_s=settings.engine_silence_s))
    return engines


def engine_configs(settings: Settings) -> list[EngineConfig]:
    """The configuration of each engine.

    Raises:
        ValueError: see `local_engines`.
    """
    names = devices(settings.devices)
    return [_config(settings, name, on_cpu=names.count("cpu")) for name in names]


def devices(wanted: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The torch devices to draw on: for ``auto`` every CUDA device, else the CPU; else the comma list's.

    Raises:
        ValueError: see `local_engines`.
    """
    if wanted.strip() == "auto":
        found = visible_devices(_present_cuda_devices(), environment)
        return [f"cuda:{index}" for index in range(found)] or ["cpu"]
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise ValueError(f"devices: {name!r} is not a device; write auto, cpu, cuda:0 or a comma list")
    if not names:
        raise ValueError("devices: name at least one device, or auto")
    return names


def _config(settings: Settings, device: str, *, on_cpu: int) -> EngineConfig:
    cpu = device == "cpu"
    budget_gb = settings.memory_budget_gb or (CPU_BUDGET_GB if cpu else None)
    megapixels = settings.group_megapixels or (CPU_GROUP_MEGAPIXELS if cpu else CUDA_GROUP_MEGAPIXELS)
    threads = settings.torch_threads
    if threads is None and on_cpu > 1:
        # Several engines on one CPU share its cores; each would take them all.
        threads = max(1, (os.cpu_count() or 1) // on_cpu)
    return EngineConfig(
        device=device,
        manifest=settings.manifest.absolute(),
        weights=settings.weights.absolute(),
        budget_bytes=None if budget_gb is None else int(budget_gb * 1e9),
        host_budget_bytes=int(settings.host_memory_gb * 1e9),
        group_pixels=int(megapixels * MEGAPIXEL),
        torch_threads=threads,
        preload=settings.preload,
        manifest_text=_text_or_none(settings.manifest),
    )


def _text_or_none(path: Path) -> str | None:
    """The text of a file; None where it cannot be read, of which whoever needs it will complain."""
    try:
        return path.read_text()
    except OSError:
        return None


def visible_devices(present: int, environment: Mapping[str, str]) -> int:
    """The number of CUDA devices that a process sees, as CUDA reads ``CUDA_VISIBLE_DEVICES``."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or present == 0:
        return present
    count = 0
    for entry in (entry.strip() for entry in visible.split(",")):
        if not entry or entry.startswith("-") or (entry.isdigit() and int(entry) >= present):
            break  # the list ends at the first entry that is no device
        if entry.startswith("MIG-"):
            return 1  # a process sees one MIG slice, whatever else the list says
        count += 1
    return count


def _present_cuda_devices() -> int:
    """The number of device nodes; without any (WSL), of the GPUs that nvidia-smi lists; 0 if that fails."""
    nodes = [node for node in Path("/dev").glob("nvidia*") if _CUDA_NODE.fullmatch(node.name)]
    if nodes:
        return len(nodes)
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.splitlines())
