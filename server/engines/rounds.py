"""The rounds in which accounts take turns, and whose turn comes first."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import TypeAlias

from server.engines.least_within import LeastWithin

Entry: TypeAlias = tuple[int, int, int, int]
"""An entry of `ByRound`: round, sequence, account, pixels; the round of who is not ahead is `NOW`."""

NOW = -1


class Rounds:
    """The round of each account: the one that is under way, or a later one where it was served already.

    Attributes:
        now: the round that is under way.
    """

    def __init__(self) -> None:
        self.now = 0
        self._ahead: dict[int, int] = {}
        self._accounts: defaultdict[int, list[int]] = defaultdict(list)
        self._coming: list[int] = []

    def of(self, account_id: int) -> int:
        """The round to which the account's next ticket belongs."""
        return self._ahead.get(account_id, self.now)

    def is_ahead(self, account_id: int) -> bool:
        """Whether the account has to wait for a later round."""
        return account_id in self._ahead

    def serve(self, account_id: int) -> None:
        """Count a ticket of the account: its next one belongs to the next round."""
        served = self.of(account_id)
        self._ahead[account_id] = served + 1
        if served + 1 not in self._accounts:
            heappush(self._coming, served + 1)
        self._accounts[served + 1].append(account_id)
        self.now = max(self.now, served)
        while self._coming and self._coming[0] <= self.now:
            round_ = heappop(self._coming)
            for account in self._accounts.pop(round_):
                if self._ahead.get(account) == round_:
                    del self._ahead[account]


class ByRound:
    """Tickets by the rounds of their accounts and then by their age, up to so many pixels.

    An account's round changes while its tickets are here. That is put right where it matters: at the ticket
    that seems to be the next one.
    """

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._now: LeastWithin[Entry] = LeastWithin()
        self._later: LeastWithin[Entry] = LeastWithin()

    def push(self, sequence: int, account_id: int, pixels: int) -> None:
        """Add a ticket."""
        if self._rounds.is_ahead(account_id):
            self._later.push((self._rounds.of(account_id), sequence, account_id, pixels))
        else:
            self._now.push((NOW, sequence, account_id, pixels))

    def pop(self, entry: Entry) -> None:
        """Take out the ticket that `least` has just found."""
        (self._now if entry[0] == NOW else self._later).pop(entry)

    def least(self, most_pixels: float) -> Entry | None:
        """The ticket whose turn comes first among those that have no more pixels."""
        while (entry := self._later.least(most_pixels)) and entry[0] <= self._rounds.now:
            self._put_right(entry)
        while (entry := self._now.least(most_pixels)) and self._rounds.is_ahead(entry[2]):
            self._put_right(entry)
        if entry is not None:
            return entry
        while (entry := self._later.least(most_pixels)) and self._rounds.of(entry[2]) != entry[0]:
            self._put_right(entry)
        return entry

    def _put_right(self, entry: Entry) -> None:
        self.pop(entry)
        self.push(*entry[1:])
