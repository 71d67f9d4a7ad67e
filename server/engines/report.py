"""What the engines have and do at this moment, for whoever looks after the server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from pipelines.messages import PartResidency
from server.engines.engine import Engine, EngineState
from server.engines.ticket import Ticket


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A request that an engine has.

    Attributes:
        seconds: since the engine took it.
        evaluations, evaluations_total: network evaluations done and in all, 0 of 0 before the first one.
    """

    ticket: Ticket
    seconds: float
    evaluations: int
    evaluations_total: int


@dataclass(frozen=True, slots=True)
class WaitingRequests:
    """The requests that wait for an engine, of one pipeline.

    Attributes:
        longest_s: the seconds for which the oldest one has waited.
    """

    pipeline: str
    requests: int
    accounts: int
    longest_s: float


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine: what is loaded, and what it draws."""

    engine: Engine
    running: tuple[RunningRequest, ...]

    @property
    def parts(self) -> tuple[PartResidency, ...]:
        """Every loaded part of every pipeline, the pipelines by their names."""
        return tuple(sorted(self.engine.memory.parts, key=lambda part: (part.pipeline, part.part)))

    @property
    def host_bytes(self) -> int:
        """The bytes of the parts that wait in the host's memory."""
        return sum(part.nbytes for part in self.engine.memory.parts if part.place == "host")


@dataclass(frozen=True, slots=True)
class Report:
    """All engines, and what waits for one of them."""

    engines: tuple[EngineReport, ...]
    waiting: tuple[WaitingRequests, ...]

    def states(self) -> Iterator[tuple[str, EngineState]]:
        """The state of each engine by its name."""
        return ((each.engine.name, each.engine.state) for each in self.engines)

    def described(self, accounts: Mapping[int, str]) -> dict[str, Any]:
        """The report as names and values, as the page of the engines shows them.

        Args:
            accounts: the names of the accounts, by their ids.
        """
        return {
            "engines": [_engine(each, accounts) for each in self.engines],
            "waiting": [{**asdict(each), "longest_s": round(each.longest_s, 3)} for each in self.waiting],
        }


def running_request(ticket: Ticket) -> RunningRequest:
    """What is to be said of a ticket that an engine has."""
    seconds = time.monotonic() - (ticket.taken_since or ticket.since)
    return RunningRequest(ticket, seconds, *ticket.evaluations)


def waiting_requests(tickets: list[Ticket]) -> tuple[WaitingRequests, ...]:
    """What is to be said of the tickets that wait, pipeline by pipeline."""
    of_pipeline: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        of_pipeline.setdefault(ticket.request.pipeline, []).append(ticket)
    now = time.monotonic()
    return tuple(
        WaitingRequests(
            name,
            len(waiting),
            len({ticket.account_id for ticket in waiting}),
            now - min(ticket.since for ticket in waiting),
        )
        for name, waiting in sorted(of_pipeline.items())
    )


def _engine(report: EngineReport, accounts: Mapping[int, str]) -> dict[str, Any]:
    engine, memory = report.engine, report.engine.memory
    pipelines: list[dict[str, Any]] = []
    for name, group in groupby(report.parts, key=lambda part: part.pipeline):
        loaded = list(group)
        parts = [{"name": part.part, "place": part.place, "bytes": part.nbytes} for part in loaded]
        pipelines.append({"name": name, "bytes": sum(part.nbytes for part in loaded), "parts": parts})
    return {
        "name": engine.name,
        "device": memory.device,
        "state": str(engine.state),
        "reason": engine.reason,
        "budget_bytes": memory.budget_bytes,
        "used_bytes": memory.used_bytes,
        "host_bytes": report.host_bytes,
        "pipelines": pipelines,
        "running": [_running(each, accounts) for each in report.running],
    }


def _running(running: RunningRequest, accounts: Mapping[int, str]) -> dict[str, Any]:
    request = running.ticket.request
    return {
        "id": running.ticket.id,
        "account": accounts.get(running.ticket.account_id, ""),
        "pipeline": request.pipeline,
        "kind": request.kind,
        "width": getattr(request, "width", 0),
        "height": getattr(request, "height", 0),
        "images": len(getattr(request, "seeds", ())),
        "seconds": round(running.seconds, 3),
        "evaluations": running.evaluations,
        "evaluations_total": running.evaluations_total,
    }
