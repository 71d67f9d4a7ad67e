"""The server's queue written in the plainest way: every choice looks at all that waits."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipelines.group import GroupKey
from server.engines.queue import GROUPS_PER_ENGINE, Offer
from server.engines.ticket import Ticket


def group_has_room(offer: Offer, ticket: Ticket) -> bool:
    name = ticket.request.pipeline
    beside = sum(pixels for key, pixels in offer.held.items() if key.pipeline == name)
    return beside == 0 or beside + ticket.request.pixels <= offer.group_pixels


def fits(offer: Offer, ticket: Ticket) -> bool:
    if not offer.held:
        return True
    within = held_pixels(offer.held) + ticket.request.pixels <= GROUPS_PER_ENGINE * offer.group_pixels
    return within and group_has_room(offer, ticket)


def held_pixels(held: Mapping[GroupKey, int]) -> int:
    return sum(held.values())


class PlainQueue:
    """The rules of `server.engines.queue.JobQueue`, without its bounds and its waiters."""

    def __init__(self, patience_s: float, clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._waiting: dict[int, list[Ticket]] = {}
        self._lost: dict[int, list[Ticket]] = {}
        self._rounds: dict[int, int] = {}
        self._round = 0
        self._sequence = 0

    def __len__(self) -> int:
        return sum(map(len, (*self._waiting.values(), *self._lost.values())))

    def put(self, ticket: Ticket) -> None:
        self._sequence += 1
        ticket.sequence = self._sequence
        self._waiting.setdefault(ticket.account_id, []).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        ticket.passed_since = -math.inf
        insort(self._lost.setdefault(ticket.account_id, []), ticket, key=lambda each: each.sequence)

    def remove(self, ticket: Ticket) -> None:
        for tickets in (self._lost, self._waiting):
            if ticket in tickets.get(ticket.account_id, []):
                tickets[ticket.account_id].remove(ticket)

    def take(self, offers: Sequence[Offer]) -> tuple[Ticket, str] | None:
        now = self._clock()
        candidates = list(self._candidates())
        offers = self._keep_free(candidates, offers, now)
        choices = [
            (self._order(round_, ticket, offer, now), round_, ticket, offer)
            for round_, ticket in candidates
            for offer in offers
            if fits(offer, ticket)
        ]
        if not choices:
            return None
        _, round_, ticket, offer = min(choices, key=lambda choice: choice[0])
        self._mark_passed(candidates, (round_, ticket), offer, now)
        self.remove(ticket)
        self._round = max(self._round, round_)
        self._rounds[ticket.account_id] = round_ + 1
        return ticket, offer.engine

    def _candidates(self) -> Iterator[tuple[int, Ticket]]:
        """Each account's oldest ticket of every kind, those that were put back first, with its round."""
        for account_id in {**self._lost, **self._waiting}:
            round_ = max(self._round, self._rounds.get(account_id, 0))
            kinds: set[tuple[GroupKey, int]] = set()
            for ticket in (*self._lost.get(account_id, ()), *self._waiting.get(account_id, ())):
                kind = (ticket.key, ticket.request.pixels)
                if kind not in kinds:
                    kinds.add(kind)
                    yield round_, ticket

    def _is_overdue(self, ticket: Ticket, now: float) -> bool:
        return ticket.passed_since is not None and now - ticket.passed_since >= self._patience_s

    def _keep_free(
        self, candidates: list[tuple[int, Ticket]], offers: Sequence[Offer], now: float
    ) -> Sequence[Offer]:
        overdue = [ticket for _, ticket in candidates if self._is_overdue(ticket, now)]
        if not overdue or not offers:
            return offers
        oldest = min(overdue, key=lambda ticket: ticket.sequence)
        if any(fits(offer, oldest) for offer in offers):
            return offers
        emptiest = min(offers, key=lambda offer: held_pixels(offer.held))
        return [offer for offer in offers if offer is not emptiest]

    def _order(self, round_: int, ticket: Ticket, offer: Offer, now: float) -> tuple[int, ...]:
        to_load = ticket.request.pipeline not in offer.resident
        apart = bool(offer.held) and ticket.key not in offer.held
        if self._is_overdue(ticket, now):
            return (0, ticket.sequence, to_load, apart, held_pixels(offer.held))
        return (1, to_load, round_, apart, ticket.sequence, held_pixels(offer.held))

    def _mark_passed(
        self, candidates: list[tuple[int, Ticket]], chosen: tuple[int, Ticket], offer: Offer, now: float
    ) -> None:
        round_, taken = chosen
        accounts: set[int] = set()
        for other_round, ticket in candidates:
            if ticket.account_id in accounts:
                continue
            accounts.add(ticket.account_id)
            overtaken = (other_round, ticket.sequence) < (round_, taken.sequence)
            apart = ticket.request.pipeline != taken.request.pipeline and not group_has_room(offer, ticket)
            if overtaken and not apart and ticket.passed_since is None:
                ticket.passed_since = now
