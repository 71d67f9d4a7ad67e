"""What the API process and an engine process say to each other; torch-free and picklable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.drawing import Drawing
from pipelines.errors import GenerationError
from pipelines.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """All that an engine process is told when it starts.

    Attributes:
        device: a torch device ("cuda:0", "cpu").
        manifest: path of a weights.yaml.
        weights: folder under which downloaded checkpoints and the lock lie.
        budget_bytes: bound of what resident pipelines may take; None: what the CUDA device has.
        host_budget_bytes: bound of evicted pipelines kept in host memory (0: none; unused on a CPU).
        group_pixels: pixels drawn at the same time in one group (a 512x512 picture counts 262,144).
        torch_threads: CPU threads for torch; None leaves torch's choice.
        preload: load the manifest's resident pipelines before saying Ready.
    """

    device: str
    manifest: Path
    weights: Path
    budget_bytes: int | None
    group_pixels: int
    host_budget_bytes: int = 0
    torch_threads: int | None = None
    preload: bool = True


@dataclass(frozen=True, slots=True)
class Draw:
    ticket_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    ticket_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish nothing more; leave."""


@dataclass(frozen=True, slots=True)
class ClearCache:
    """Drop what is kept between requests only to save time: the pictures stay the same."""

    maintenance_id: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read weights.yaml and loaded.yaml again; what left them is dropped, and may be in use of nothing."""

    maintenance_id: str


Maintenance = ClearCache | Reload
"""What an engine does between two turns and confirms with `Done`; nothing that it draws is disturbed."""

Command = Draw | Cancel | Stop | Maintenance


@dataclass(frozen=True, slots=True)
class Loading:
    """The engine is loading this pipeline; before Ready it is what the engine is waiting for."""

    pipeline: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The engine cannot go on and its process ends after this; ``reason`` is fit for a caller."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can draw. ``resident``: names of the pipelines that are loaded."""

    device: str
    resident: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` network evaluations of a request, over all its pictures."""

    ticket_id: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Drawn:
    ticket_id: str
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class Failed:
    ticket_id: str
    error: GenerationError


@dataclass(frozen=True, slots=True)
class Residency:
    """Which pipelines are loaded now, and what they take; sent whenever it changes."""

    resident: tuple[str, ...]
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Done:
    """A `Maintenance` was carried out."""

    maintenance_id: str


Event = Loading | Broken | Ready | Progress | Drawn | Failed | Residency | Done
