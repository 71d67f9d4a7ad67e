"""The messages between the API process and an engine process; torch-free and picklable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.drawing import Drawing
from pipelines.errors import CheckpointUnavailable, GenerationError
from pipelines.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The settings of an engine process.

    Attributes:
        device: a torch device ("cuda:0", "cpu").
        manifest: path of a weights.yaml.
        weights: folder under which downloaded checkpoints and the lock lie.
        budget_bytes: the most bytes that resident pipelines may take; None: a part of the CUDA device.
        host_budget_bytes: the most bytes of evicted pipelines kept in host memory (0: none; unused on a CPU).
        group_pixels: pixels drawn at the same time in one group (a 512x512 picture counts 262,144).
        torch_threads: CPU threads for torch; None leaves torch's choice.
        preload: load the manifest's resident pipelines before saying Ready.
        manifest_text: what weights.yaml said when it was valid last; it counts while the file is not valid.
    """

    device: str
    manifest: Path
    weights: Path
    budget_bytes: int | None
    group_pixels: int
    host_budget_bytes: int = 0
    torch_threads: int | None = None
    preload: bool = True
    manifest_text: str | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw a request."""

    ticket_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop a request, whether it waits or is being drawn."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the process; requests that are not finished are lost."""


@dataclass(frozen=True, slots=True)
class ClearCache:
    """Drop what is kept between requests only to save time. The pictures stay the same."""

    maintenance_id: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read weights.yaml and loaded.yaml again and drop the pipelines that they no longer name.

    The caller makes sure that nobody draws with those.
    """

    maintenance_id: str


Maintenance = ClearCache | Reload
"""The commands that an engine carries out between two turns and confirms with `Done`. They disturb nothing
that is being drawn."""

Command = Draw | Cancel | Stop | Maintenance


@dataclass(frozen=True, slots=True)
class Loading:
    """The engine is loading this pipeline, before it is ready."""

    pipeline: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The engine cannot go on, and its process ends after this. The reason is fit for a caller."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can draw, and these pipelines are loaded.

    Attributes:
        budget_bytes: the most bytes that all parts may take on the device at one moment; None where the
            engine does not say.
    """

    device: str
    resident: tuple[str, ...]
    budget_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The network evaluations of a request, done and in all, over all its pictures."""

    ticket_id: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request is drawn, or answered."""

    ticket_id: str
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class Failed:
    """A request has failed, for a reason in its caller's words."""

    ticket_id: str
    error: GenerationError


Place = Literal["device", "host"]
"""Where a loaded part is: on the device that draws, or waiting in the host's memory."""


@dataclass(frozen=True, slots=True)
class PartResidency:
    """One loaded part of a pipeline (its text encoder, UNet, VAE ...) and where it is.

    Attributes:
        part: the part's name in the pipeline's ``modules``.
        nbytes: the bytes of its parameters and buffers, with what requests have put on it (LoRAs).
    """

    pipeline: str
    part: str
    place: Place
    nbytes: int


@dataclass(frozen=True, slots=True)
class Residency:
    """What is loaded now; sent when a part came, left or changed its place.

    Attributes:
        resident: the pipelines that are loaded, on the device or in the host's memory.
        used_bytes: the bytes of all parts on the device.
        parts: every loaded part of every pipeline.
    """

    resident: tuple[str, ...]
    used_bytes: int
    parts: tuple[PartResidency, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """Something that requests may name and that cannot be drawn with now.

    Attributes:
        name: its name in the manifest.
        kind: the section of weights.yaml that has it.
        reason: the rest of a sentence, fit for a caller.
        remedy: what an operator does about it: a command where there is one.
        part: the optional part that is missing; the rest of a pipeline draws. None: nothing of it draws.
        also: its other names.
    """

    name: str
    kind: str
    reason: str
    remedy: str
    part: str | None = None
    also: tuple[str, ...] = ()

    def names_the_same(self, other: Absent) -> bool:
        """Whether both are about the same thing, for whatever reason."""
        return (self.name, self.part) == (other.name, other.part)

    def error(self) -> CheckpointUnavailable:
        """The error for a caller who asked for it."""
        whose = self.name if self.part is None else f"the {self.part.replace('_', ' ')} of {self.name}"
        return CheckpointUnavailable(f"{whose} is unavailable: {self.reason}", self.remedy)


@dataclass(frozen=True, slots=True)
class Absences:
    """All that the manifest names and this engine cannot draw with now; sent whenever that has changed."""

    absences: tuple[Absent, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A `Maintenance` was carried out."""

    maintenance_id: str


Event = Loading | Broken | Ready | Progress | Drawn | Failed | Residency | Absences | Done
