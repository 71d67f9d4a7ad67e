"""The engine that draws requests: what the server asks of it, however it is built."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from pipelines.drawing import Drawing
from pipelines.messages import Absent, Maintenance
from pipelines.request import Request as DrawRequest


class EngineState(StrEnum):
    """Whether an engine can draw, soon will, or does not."""

    starting = "starting"
    """The engine cannot draw yet but soon will: requests wait for it."""
    ready = "ready"
    failed = "failed"
    """The engine could not be started several times; it is tried again, but nobody should wait for that."""
    stopped = "stopped"


class Engine(Protocol):
    """Something that draws requests, many at the same time; it goes away and comes back as it can."""

    @property
    def name(self) -> str:
        """The engine's name, unique among the server's engines."""
        ...

    @property
    def group_pixels(self) -> int:
        """The pixels that the engine draws at the same time in one group."""
        ...

    @property
    def state(self) -> EngineState: ...

    @property
    def reason(self) -> str | None:
        """The reason why it cannot draw now ("loading kolors"), fit for a caller; None when it is ready."""
        ...

    @property
    def resident(self) -> frozenset[str]:
        """The names of the pipelines that it can draw without loading anything."""
        ...

    @property
    def absences(self) -> tuple[Absent, ...]:
        """All that the manifest names and the engine cannot draw with, for want of whole weights."""
        ...

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` whenever state, reason or resident pipelines have changed."""
        ...

    async def start(self) -> None:
        """Begin to start; `state` tells when it is ready."""
        ...

    async def stop(self) -> None:
        """End, and return when nothing of it is left; what it was drawing fails with EngineLost."""
        ...

    async def restart(self) -> None:
        """End what runs and start anew; what it was drawing fails with EngineLost. Return when the old one
        is gone: `state` tells when the new one is ready. Nothing happens to an engine that is stopped."""
        ...

    async def maintain(self, maintenance: Maintenance) -> None:
        """Have the command carried out between two network evaluations, and return when it was. Return too
        when nobody is left to carry it out: an engine that starts anew has no caches and reads all files."""
        ...

    async def draw(
        self, ticket_id: str, request: DrawRequest, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        """Draw one request; cancelling the awaiting task withdraws it and touches no other.

        Args:
            ticket_id: a name that no other request on this engine has at the same time.
            on_progress: called with network evaluations (done, total).
        Raises:
            EngineLost: the engine is not ready, or went away while drawing.
            GenerationError: the request failed; the engine goes on.
        """
        ...
