"""Ticket: one request's place in the queue."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

from pipelines.group import GroupKey, group_key
from pipelines.request import Request as DrawRequest


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place in the queue.

    Attributes:
        key: approximately the group it will be drawn in; the engine's family decides exactly.
        attempts: how many engines have tried to draw it.
        taken: resolves to the name of the engine that is to draw it; replaced when the ticket is put back.
        passed_since: when it was first passed by a ticket whose turn was later.
    """

    request: DrawRequest
    account_id: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    key: GroupKey = field(init=False)
    attempts: int = 0
    taken: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sequence: int = 0
    passed_since: float | None = None

    def __post_init__(self) -> None:
        self.key = group_key(self.request)
