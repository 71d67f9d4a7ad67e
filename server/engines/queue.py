"""Tickets that wait for an engine, and which of them goes next to which engine; pure asyncio, no I/O."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.group import PATIENCE_S, GroupKey, group_key
from pipelines.request import Request as DrawRequest
from server import errors

GROUPS_PER_ENGINE = 2
"""The groups whose pixels one engine may hold: beside a full group another one finds room to take turns."""

_PACE_WEIGHT = 0.1
_MAX_RETRY_AFTER_S = 60


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

    @property
    def held_pixels(self) -> int:
        return sum(self.held.values())

    def group_has_room(self, ticket: Ticket) -> bool:
        """Whether the ticket fits beside those of its pipeline, which may not fill the engine alone."""
        name = ticket.request.pipeline
        beside = sum(pixels for key, pixels in self.held.items() if key.pipeline == name)
        return beside == 0 or beside + ticket.request.pixels <= self.group_pixels

    def fits(self, ticket: Ticket) -> bool:
        """Whether the engine could take the ticket; one without work takes any, however large."""
        if not self.held:
            return True
        within = self.held_pixels + ticket.request.pixels <= GROUPS_PER_ENGINE * self.group_pixels
        return within and self.group_has_room(ticket)


class JobQueue:
    """A bounded waiting room, fair between accounts.

    Tickets whose pipeline is loaded go first. Among them accounts take turns: an account's next ticket
    belongs to a round, and lower rounds go first; within a round, one whose group is running already, then
    the older one. A ticket that was passed by others for ``patience_s`` goes before all; if need be an engine
    is emptied for it.
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
        self._waiting: dict[int, list[Ticket]] = {}
        self._rounds: dict[int, int] = {}
        self._round = 0
        self._sequence = 0
        self._pace_s = 1.0
        self._last_taken: float | None = None

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._waiting.values())

    @property
    def expected_wait_s(self) -> float:
        """The seconds for which a request that lined up now would wait, at the pace so far."""
        return self._pace_s * len(self)

    def refuse_if_full(self, account_id: int) -> None:
        """Refuse an account whose next ticket would find no place.

        Raises:
            QueueFull: the server's or the account's places are all taken; says when to try again.
        """
        own = len(self._waiting.get(account_id, ()))
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
        self._waiting.setdefault(ticket.account_id, []).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """Put a ticket whose engine was lost back into the queue, before all others and whatever the
        bounds.
        """
        ticket.taken = asyncio.get_running_loop().create_future()
        ticket.passed_since = -math.inf
        self._waiting.setdefault(ticket.account_id, []).insert(0, ticket)

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
        tickets = self._waiting.get(ticket.account_id, [])
        if ticket in tickets:
            tickets.remove(ticket)
        if not tickets:
            self._waiting.pop(ticket.account_id, None)

    def refuse(self, concerned: Callable[[Ticket], bool], refusal: errors.ApiError) -> None:
        """Fail the waiting tickets that are concerned."""
        for ticket in [ticket for tickets in self._waiting.values() for ticket in tickets]:
            if concerned(ticket) and not ticket.taken.done():
                ticket.taken.set_exception(refusal)

    def refuse_all(self, reason: str) -> None:
        """Fail every waiting ticket with `errors.Unavailable`: nothing will draw them."""
        for tickets in self._waiting.values():
            for ticket in tickets:
                if not ticket.taken.done():
                    ticket.taken.set_exception(errors.Unavailable(reason))
        self._waiting.clear()

    def take(self, offers: Sequence[Offer]) -> tuple[Ticket, str] | None:
        """Let the next ticket go to the engine that suits it best, and resolve its ``taken``.

        Returns:
            the ticket and the engine's name; None: nothing that waits fits any of the engines now.
        """
        now = self._clock()
        candidates = list(self._candidates())
        offers = self._keep_free(candidates, offers, now)
        choices = [
            (self._order(round_, ticket, offer, now), round_, ticket, offer)
            for round_, ticket in candidates
            for offer in offers
            if offer.fits(ticket)
        ]
        if not choices:
            return None
        _, round_, ticket, offer = min(choices, key=lambda choice: choice[0])
        self._mark_passed(candidates, (round_, ticket), offer, now)
        self.remove(ticket)
        self._count(ticket.account_id, round_, now)
        ticket.taken.set_result(offer.engine)
        return ticket, offer.engine

    def _candidates(self) -> Iterator[tuple[int, Ticket]]:
        """Each account's oldest ticket of every kind, with the account's round; no later one goes sooner."""
        for account_id, tickets in self._waiting.items():
            round_ = max(self._round, self._rounds.get(account_id, 0))
            kinds: set[tuple[GroupKey, int]] = set()
            for ticket in tickets:
                kind = (ticket.key, ticket.request.pixels)
                if kind not in kinds and not ticket.taken.done():
                    kinds.add(kind)
                    yield round_, ticket

    def _overdue(self, ticket: Ticket, now: float) -> bool:
        return ticket.passed_since is not None and now - ticket.passed_since >= self._patience_s

    def _keep_free(
        self, candidates: list[tuple[int, Ticket]], offers: Sequence[Offer], now: float
    ) -> Sequence[Offer]:
        """The offers without the engine that has to be emptied for an overdue ticket that fits none."""
        overdue = [ticket for _, ticket in candidates if self._overdue(ticket, now)]
        if not overdue or not offers:
            return offers
        oldest = min(overdue, key=lambda ticket: ticket.sequence)
        if any(offer.fits(oldest) for offer in offers):
            return offers
        emptiest = min(offers, key=lambda offer: offer.held_pixels)
        return [offer for offer in offers if offer is not emptiest]

    def _order(self, round_: int, ticket: Ticket, offer: Offer, now: float) -> tuple[int, ...]:
        """The sort key of a choice: the lowest goes first."""
        to_load = ticket.request.pipeline not in offer.resident
        # A free engine is as good as one where the group is running already.
        apart = bool(offer.held) and ticket.key not in offer.held
        if self._overdue(ticket, now):
            return (0, ticket.sequence, to_load, apart, offer.held_pixels)
        return (1, to_load, round_, apart, ticket.sequence, offer.held_pixels)

    def _mark_passed(
        self, candidates: list[tuple[int, Ticket]], chosen: tuple[int, Ticket], offer: Offer, now: float
    ) -> None:
        """Start the patience of each account's oldest ticket that the chosen one has overtaken."""
        round_, taken = chosen
        accounts: set[int] = set()
        for other_round, ticket in candidates:
            if ticket.account_id in accounts:
                continue
            accounts.add(ticket.account_id)
            overtaken = (other_round, ticket.sequence) < (round_, taken.sequence)
            # Who waits for places in its own running group is not passed by those of other pipelines.
            apart = ticket.request.pipeline != taken.request.pipeline and not offer.group_has_room(ticket)
            if overtaken and not apart and ticket.passed_since is None:
                ticket.passed_since = now

    def _count(self, account_id: int, round_: int, now: float) -> None:
        """Move the account to the next round, and measure how fast a queue that is never empty moves."""
        self._round = max(self._round, round_)
        self._rounds[account_id] = round_ + 1
        self._rounds = {account: next_ for account, next_ in self._rounds.items() if next_ > self._round}
        if self._last_taken is not None:
            self._pace_s += _PACE_WEIGHT * (now - self._last_taken - self._pace_s)
        self._last_taken = now if self._waiting else None
