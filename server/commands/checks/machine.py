"""The machine: Python, torch, driver, devices, memory and disk; looked at without importing torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipelines.weights.downloads import sized
from pipelines.weights.installed import ENGINE, HOW_TO_INSTALL
from server.commands.checks.finding import PATIENCE_S, Finding
from server.engines.devices import devices, visible_devices
from server.settings import Settings

OLDEST_PYTHON = (3, 11)

LITTLE_ROOM = 1_000_000_000
NO_ROOM = 50_000_000
"""The free bytes for database and outputs below which people are warned, and below which nothing works."""

_DRIVERS = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
"""The oldest driver for each major release of CUDA, from NVIDIA's table of minor-version compatibility."""

_CAPABILITIES = {11: 3.5, 12: 5.0, 13: 7.5}
"""The lowest compute capability that each major release of CUDA compiles for."""

_QUERY = "index,name,driver_version,memory.total,memory.free,compute_cap"
_MIB = 1024 * 1024
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Torch:
    """The installed torch. ``cuda`` is the release that it was built for; None: for the CPU alone."""

    version: str
    cuda: str | None

    @property
    def cuda_major(self) -> int:
        return int((self.cuda or "0").partition(".")[0])


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as ``nvidia-smi`` describes it, in bytes."""

    name: str
    driver: str
    total: int
    free: int
    capability: float


def installed_torch() -> Torch | None:
    """The torch that an engine would import, from the text of its version; None where there is none."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "version.py").read_text()
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda: [^=]+= '([^']+)'", text, re.MULTILINE)
    return Torch(version.group(1) if version else "unknown", cuda and cuda.group(1))


def cards() -> list[Card] | None:
    """The GPUs that ``nvidia-smi`` lists; None where it is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [card for line in listed.stdout.splitlines() if (card := _card(line)) is not None]


def _card(line: str) -> Card | None:
    cells = [cell.strip() for cell in line.split(",")]
    try:
        _, name, driver, total, free, capability = cells
        return Card(name, driver, int(total) * _MIB, int(free) * _MIB, float(capability))
    except ValueError:
        return None


def python_finding(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """Whether this Python is new enough."""
    said = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return Finding("python", "problem", f"{said} is too old", "Install Python 3.11 or later.")
    return Finding("python", "ok", said)


def torch_finding(torch: Torch | None) -> Finding:
    """Whether there is something to draw with."""
    if torch is None:
        return Finding(
            "torch",
            "problem",
            "not installed: this machine can take requests, but draws nothing",
            f"{HOW_TO_INSTALL} where pictures are to be drawn",
        )
    missing = [name for name in ENGINE if find_spec(name) is None]
    if missing:
        return Finding("torch", "problem", f"{torch.version}, but no {', '.join(missing)}", HOW_TO_INSTALL)
    return Finding("torch", "ok", f"{torch.version}, for {f'CUDA {torch.cuda}' if torch.cuda else 'the CPU'}")


def driver_finding(torch: Torch | None, listed: list[Card] | None, wanted: str) -> Finding:
    """Whether the driver is new enough for the CUDA that torch was built for."""
    needs_cuda = "cuda" in wanted
    if listed is None:
        if needs_cuda:
            remedy = "Install NVIDIA's driver, or set UNDERSTUDY_DEVICES=cpu."
            return Finding("driver", "problem", "nvidia-smi does not answer, and devices name CUDA", remedy)
        return Finding("driver", "ok", "none of NVIDIA's; pictures are drawn on the CPU, slowly")
    if not listed:
        return Finding("driver", "warning", "it lists no GPU", "Run nvidia-smi and read what it says.")
    driver = listed[0].driver
    draws_on_cpu = devices_are_cpu(wanted)
    if torch is None or draws_on_cpu:
        return Finding("driver", "ok", driver)
    if torch.cuda is None:
        remedy = "Install torch for CUDA from pytorch.org, or set UNDERSTUDY_DEVICES=cpu."
        return Finding("driver", "problem", f"{driver}, but torch is built for the CPU alone", remedy)
    oldest = _DRIVERS.get(torch.cuda_major)
    if oldest and _numbers(driver) < oldest:
        least = ".".join(map(str, oldest[:2]))
        words = f"{driver} is too old for CUDA {torch.cuda}, which torch needs"
        return Finding("driver", "problem", words, f"Update NVIDIA's driver to {least} or later.")
    return Finding("driver", "ok", f"{driver}, new enough for CUDA {torch.cuda}")


def devices_are_cpu(wanted: str) -> bool:
    """Whether settings ask for the CPU, whatever else the machine has."""
    return all(name.strip() == "cpu" for name in wanted.split(",") if name.strip())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def device_findings(
    torch: Torch | None,
    listed: list[Card] | None,
    settings: Settings,
    environment: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """Each device that is to draw: whether it is there, can be used, and has memory free."""
    findings: list[Finding] = []
    there = listed or []
    seen = visible_devices(len(there), environment)
    for name in devices(settings.devices, environment):
        if name == "cpu":
            total, free = memory()
            words = f"{os.cpu_count()} cores, {sized(free)} of {sized(total)} memory free"
            findings.append(Finding("device cpu", "ok", words))
            continue
        kind, _, index = name.partition(":")
        if kind != "cuda":
            findings.append(Finding(f"device {name}", "warning", "of a kind that was never tried"))
        elif listed is None:
            findings.append(Finding(f"device {name}", "problem", "no GPU of this machine answers"))
        elif int(index or 0) >= seen:
            remedy = "Set UNDERSTUDY_DEVICES to one that is there, or to auto."
            findings.append(Finding(f"device {name}", "problem", f"there are {seen} GPUs", remedy))
        else:
            findings.append(_card_finding(name, there[int(index or 0)], torch))
    return findings


def _card_finding(device: str, card: Card, torch: Torch | None) -> Finding:
    words = f"{card.name}, {sized(card.free)} of {sized(card.total)} free"
    lowest = _CAPABILITIES.get(torch.cuda_major, 0.0) if torch else 0.0
    if card.capability < lowest:
        older = f"{words}; compute capability {card.capability:g} is below {lowest:g}, torch's lowest"
        return Finding(f"device {device}", "problem", older, "Install an older torch, or use another card.")
    if card.free < 0.8 * card.total:
        remedy = "See nvidia-smi for who holds the memory."
        return Finding(f"device {device}", "warning", f"{words}: other programs use it", remedy)
    return Finding(f"device {device}", "ok", words)


def memory() -> tuple[int, int]:
    """The bytes of memory that this process may use, and that are free; a container's limit counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, free = known["MemTotal"], known["MemAvailable"]
    except (OSError, KeyError):
        total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(_CGROUP.read_text())
    except (OSError, ValueError):
        return total, free
    return min(total, limit), min(free, limit)


def folder_finding(name: str, folder: Path, variable: str) -> Finding:
    """Whether a folder can be written, and how much room is on its disk; nothing is made."""
    nearest = nearest_there(folder)
    if not nearest.is_dir():
        return Finding(name, "problem", f"{nearest} is no folder", f"Set {variable} to another one.")
    if not os.access(nearest, os.W_OK | os.X_OK) or is_read_only(nearest):
        return Finding(
            name,
            "problem",
            f"nothing can be written into {nearest}",
            f"Let its owner be this user, or set {variable}.",
        )
    free = shutil.disk_usage(nearest).free
    words = f"{folder}: {sized(free)} free"
    if free < NO_ROOM:
        return Finding(name, "problem", words, "Free some room on this disk.")
    if free < LITTLE_ROOM:
        return Finding(name, "warning", words, "Free some room on this disk.")
    return Finding(name, "ok", words if folder.exists() else f"{words}; made at the start")


def nearest_there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    return nearest


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder takes nothing, whoever asks."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
