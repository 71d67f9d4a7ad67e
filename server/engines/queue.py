"""Tickets that wait for an engine, and which of them goes next to which engine; pure asyncio, no I/O."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeVar, cast

from pipelines.group import PATIENCE_S, GroupKey
from server import errors
from server.engines.held import Held
from server.engines.lanes import Lane, OldestUnpassed
from server.engines.least_within import LeastWithin
from server.engines.rounds import Rounds
from server.engines.ticket import Ticket

GROUPS_PER_ENGINE = 2
"""The groups whose pixels one engine may hold: beside a full group another one finds room to take turns."""

_BEFORE_ALL = -(2**62)
_PACE_WEIGHT = 0.1
_MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The room of one engine that is ready: what it holds, and what it could take.

    Attributes:
        group_pixels: pixels that the engine draws at the same time in one group.
        resident: pipelines that are loaded, or about to be for a ticket it holds.
        held: pixels of the tickets that the engine has, by their keys.
    """

    engine: str
    group_pixels: int
    resident: frozenset[str]
    held: Mapping[GroupKey, int]

    def __post_init__(self) -> None:
        if not isinstance(self.held, Held):
            object.__setattr__(self, "held", Held(self.held))

    @property
    def held_pixels(self) -> int:
        return self._held.total

    @property
    def _held(self) -> Held:
        return cast(Held, self.held)

    def group_room(self, pipeline: str) -> float:
        """The most pixels of a ticket beside those of its pipeline, which may not fill the engine alone."""
        beside = self._held.of_pipeline(pipeline)
        return math.inf if beside == 0 else self.group_pixels - beside

    def room(self, pipeline: str) -> float:
        """The most pixels of a ticket of that pipeline; an engine without work takes any, however large."""
        if not self._held:
            return math.inf
        within = GROUPS_PER_ENGINE * self.group_pixels - self._held.total
        return min(within, self.group_room(pipeline))

    def fits(self, ticket: Ticket) -> bool:
        """Whether the engine could take the ticket."""
        return ticket.request.pixels <= self.room(ticket.request.pipeline)


@dataclass(slots=True)
class _Account:
    """The waiting tickets of one account: how many, and their sequences by age; those put back come first."""

    count: int = 0
    by_age: list[tuple[int, int]] = field(default_factory=list)


class JobQueue:
    """A bounded waiting room, fair between accounts.

    Tickets whose pipeline is loaded go first. Among them accounts take turns: an account's next ticket
    belongs to a round, and lower rounds go first; within a round, one whose group is running already, then
    the older one. A ticket that was passed by others for ``patience_s`` goes before all; if need be an engine
    is emptied for it.

    Whatever happens to one ticket costs about the same however many wait: see `server.engines.lanes`.
    """

    def __init__(
        self,
        *,
        limit: int,
        limit_per_account: int,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._limit_per_account = limit_per_account
        self._patience_s = patience_s
        self._clock = clock
        self._tickets: dict[int, Ticket] = {}
        self._accounts: dict[int, _Account] = {}
        self._rounds = Rounds()
        self._of_pipeline: dict[str, Lane] = {}
        self._of_group: dict[GroupKey, Lane] = {}
        self._unpassed = OldestUnpassed(self._rounds)
        self._passed: deque[tuple[float, Ticket]] = deque()
        self._overdue: dict[str, LeastWithin[tuple[int, int]]] = {}
        self._sequence = 0
        self._pace_s = 1.0
        self._last_taken: float | None = None

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def expected_wait_s(self) -> float:
        """The seconds for which a request that lined up now would wait, at the pace so far."""
        return self._pace_s * len(self)

    def refuse_if_full(self, account_id: int) -> None:
        """Refuse an account whose next ticket would find no place.

        Raises:
            QueueFull: the server's or the account's places are all taken; says when to try again.
        """
        account = self._accounts.get(account_id)
        own = account.count if account else 0
        if len(self) >= self._limit or own >= self._limit_per_account:
            # By then a tenth of the queue has moved on: enough places for those who were told the same.
            seconds = math.ceil(self._pace_s * max(1, len(self) // 10))
            raise errors.QueueFull(min(_MAX_RETRY_AFTER_S, max(1, seconds)))

    def put(self, ticket: Ticket, *, bounded: bool = True) -> None:
        """Line a ticket up.

        Args:
            bounded: False takes the ticket even when the queue is full: it was accepted before a restart.
        Raises:
            QueueFull: see `refuse_if_full`.
        """
        if bounded:
            self.refuse_if_full(ticket.account_id)
        self._sequence += 1
        ticket.sequence = self._sequence
        self._of_pipeline.setdefault(ticket.request.pipeline, Lane(self._rounds)).add(ticket)
        self._of_group.setdefault(ticket.key, Lane(self._rounds)).add(ticket)
        self._line_up(ticket, ticket.sequence)

    def put_back(self, ticket: Ticket) -> None:
        """Put a ticket whose engine was lost back into the queue, before all others and whatever the
        bounds.
        """
        ticket.taken = asyncio.get_running_loop().create_future()
        ticket.passed_since = -math.inf
        self._note_overdue(ticket)
        self._line_up(ticket, _BEFORE_ALL + ticket.sequence)

    def _line_up(self, ticket: Ticket, age: int) -> None:
        self._tickets[ticket.sequence] = ticket
        account = self._accounts.setdefault(ticket.account_id, _Account())
        account.count += 1
        heappush(account.by_age, (age, ticket.sequence))
        self._unpassed.note(ticket.account_id, self._oldest(account))

    async def turn(self, ticket: Ticket, timeout_s: float) -> str:
        """Wait until an engine takes the ticket; a cancelled waiter takes its ticket along.

        Returns:
            the engine's name.
        Raises:
            QueueTimeout: none took it in time; it has left the queue.
        """
        try:
            # Not wait_for or timeout(): both may lose an engine that is assigned in the same instant.
            await asyncio.wait({ticket.taken}, timeout=timeout_s)
            if not ticket.taken.done():
                raise errors.QueueTimeout
            return ticket.taken.result()
        finally:
            self.remove(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, if it is waiting; no other ticket is touched."""
        if self._tickets.get(ticket.sequence) is not ticket:
            return
        del self._tickets[ticket.sequence]
        if ticket.passed_since != -math.inf:  # else it was put back, and is overdue from the beginning
            _remove(self._of_pipeline, ticket.request.pipeline, ticket)
            _remove(self._of_group, ticket.key, ticket)
        account = self._accounts[ticket.account_id]
        account.count -= 1
        self._unpassed.note(ticket.account_id, self._oldest(account))
        if not account.count:
            del self._accounts[ticket.account_id]

    def refuse(self, concerned: Callable[[Ticket], bool], refusal: errors.ApiError) -> None:
        """Fail the waiting tickets that are concerned."""
        for ticket in [ticket for ticket in self._tickets.values() if concerned(ticket)]:
            self.remove(ticket)
            if not ticket.taken.done():
                ticket.taken.set_exception(refusal)

    def refuse_all(self, reason: str) -> None:
        """Fail every waiting ticket with `errors.Unavailable`: nothing will draw them."""
        self.refuse(lambda ticket: True, errors.Unavailable(reason))

    def take(self, offers: Sequence[Offer]) -> tuple[Ticket, str] | None:
        """Let the next ticket go to the engine that suits it best, and resolve its ``taken``.

        Returns:
            the ticket and the engine's name; None: nothing that waits fits any of the engines now.
        """
        now = self._clock()
        while self._passed and now - self._passed[0][0] >= self._patience_s:
            self._note_overdue(self._passed.popleft()[1])
        choices = [
            (self._order(ticket, offer, now), ticket, offer)
            for offer in self._keep_free(offers)
            for ticket in self._candidates(offer)
        ]
        if not choices:
            return None
        _, ticket, offer = min(choices, key=lambda choice: choice[0])
        self._mark_passed(ticket, offer, now)
        self.remove(ticket)
        self._count(ticket.account_id, now)
        ticket.taken.set_result(offer.engine)
        return ticket, offer.engine

    def _candidates(self, offer: Offer) -> Iterator[Ticket]:
        """Tickets that fit the engine; the one that suits it best is among them.

        It is the first one of its pipeline, or of a group that the engine draws already.
        """
        for pipeline in self._overdue:
            if overdue := self._oldest_overdue(pipeline, offer.room(pipeline)):
                yield overdue
        for pipeline, lane in self._of_pipeline.items():
            if first := lane.next(offer.room(pipeline)):
                yield first
        for key in offer.held:
            if (lane := self._of_group.get(key)) and (first := lane.next(offer.room(key.pipeline))):
                yield first

    def _oldest(self, account: _Account) -> Ticket | None:
        while account.by_age and account.by_age[0][1] not in self._tickets:
            heappop(account.by_age)
        return self._tickets[account.by_age[0][1]] if account.by_age else None

    def _is_overdue(self, ticket: Ticket, now: float) -> bool:
        return ticket.passed_since is not None and now - ticket.passed_since >= self._patience_s

    def _note_overdue(self, ticket: Ticket) -> None:
        of_pipeline = self._overdue.setdefault(ticket.request.pipeline, LeastWithin())
        of_pipeline.push((ticket.sequence, ticket.request.pixels))

    def _oldest_overdue(self, pipeline: str, most_pixels: float) -> Ticket | None:
        of_pipeline = self._overdue[pipeline]
        while entry := of_pipeline.least(most_pixels):
            if ticket := self._tickets.get(entry[0]):
                return ticket
            of_pipeline.pop(entry)
        return None

    def _keep_free(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """The offers without the engine that has to be emptied for an overdue ticket that fits none."""
        found = {pipeline: self._oldest_overdue(pipeline, math.inf) for pipeline in self._overdue}
        self._overdue = {pipeline: self._overdue[pipeline] for pipeline, each in found.items() if each}
        overdue = [ticket for ticket in found.values() if ticket]
        if not overdue or not offers:
            return offers
        oldest = min(overdue, key=lambda ticket: ticket.sequence)
        if any(offer.fits(oldest) for offer in offers):
            return offers
        emptiest = min(offers, key=lambda offer: offer.held_pixels)
        return [offer for offer in offers if offer is not emptiest]

    def _order(self, ticket: Ticket, offer: Offer, now: float) -> tuple[int, ...]:
        """The sort key of a choice: the lowest goes first."""
        to_load = ticket.request.pipeline not in offer.resident
        # A free engine is as good as one where the group is running already.
        apart = bool(offer.held) and ticket.key not in offer.held
        if self._is_overdue(ticket, now):
            return (0, ticket.sequence, to_load, apart, offer.held_pixels)
        round_ = self._rounds.of(ticket.account_id)
        return (1, to_load, round_, apart, ticket.sequence, offer.held_pixels)

    def _mark_passed(self, taken: Ticket, offer: Offer, now: float) -> None:
        """Start the patience of each account's oldest ticket that the taken one has overtaken."""
        for pipeline in self._unpassed.pipelines:
            # Who waits for places in its own running group is not passed by those of other pipelines.
            most = math.inf if pipeline == taken.request.pipeline else offer.group_room(pipeline)
            for ticket in self._unpassed.take_before(pipeline, most, taken):
                ticket.passed_since = now
                self._passed.append((now, ticket))

    def _count(self, account_id: int, now: float) -> None:
        """Move the account to the next round, and measure how fast a queue that is never empty moves."""
        self._rounds.serve(account_id)
        if self._last_taken is not None:
            self._pace_s += _PACE_WEIGHT * (now - self._last_taken - self._pace_s)
        self._last_taken = now if self._tickets else None


K = TypeVar("K")


def _remove(lanes: dict[K, Lane], name: K, ticket: Ticket) -> None:
    lanes[name].remove(ticket)
    if not lanes[name]:
        del lanes[name]
