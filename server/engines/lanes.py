"""The tickets that wait: by what they ask for, and each account's oldest one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from server.engines.rounds import ByRound, Rounds
from server.engines.ticket import Ticket


class Lane:
    """The tickets that ask for the same thing (a pipeline, a group), in the order of their accounts' rounds.

    Only each account's oldest ticket of every number of pixels takes part: no later one goes sooner.
    """

    def __init__(self, rounds: Rounds) -> None:
        self._count = 0
        self._of_account: dict[tuple[int, int], OrderedDict[int, Ticket]] = {}
        self._oldest = ByRound(rounds)

    def __len__(self) -> int:
        return self._count

    def add(self, ticket: Ticket) -> None:
        """Add a ticket that is younger than all that are here."""
        group = ticket.account_id, ticket.request.pixels
        if group not in self._of_account:
            self._of_account[group] = OrderedDict()
            self._oldest.push(ticket.sequence, *group)
        self._of_account[group][ticket.sequence] = ticket
        self._count += 1

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket."""
        # What stands for its group is put right when it seems to be the next one.
        del self._of_account[ticket.account_id, ticket.request.pixels][ticket.sequence]
        self._count -= 1

    def next(self, most_pixels: float) -> Ticket | None:
        """The ticket whose turn comes first among those that have no more pixels."""
        while entry := self._oldest.least(most_pixels):
            _, sequence, account_id, pixels = entry
            tickets = self._of_account[account_id, pixels]
            oldest = next(iter(tickets), None)
            if oldest == sequence:
                return tickets[sequence]
            self._oldest.pop(entry)
            if oldest is None:
                del self._of_account[account_id, pixels]
            else:
                self._oldest.push(oldest, account_id, pixels)
        return None


class OldestUnpassed:
    """Each account's oldest ticket, where no other has passed it yet."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._oldest: dict[int, Ticket] = {}
        self._of_pipeline: dict[str, ByRound] = {}

    @property
    def pipelines(self) -> list[str]:
        """The pipelines that such tickets may ask for."""
        return list(self._of_pipeline)

    def note(self, account_id: int, oldest: Ticket | None) -> None:
        """Note what is an account's oldest ticket now."""
        if oldest is None or oldest.passed_since is not None:
            self._oldest.pop(account_id, None)
        elif self._oldest.get(account_id) is not oldest:
            self._oldest[account_id] = oldest
            by_round = self._of_pipeline.setdefault(oldest.request.pipeline, ByRound(self._rounds))
            by_round.push(oldest.sequence, account_id, oldest.request.pixels)

    def take_before(self, pipeline: str, most_pixels: float, taken: Ticket) -> Iterator[Ticket]:
        """Take out the tickets whose turn was before that of ``taken``, of a pipeline and so many pixels."""
        its_turn = self._rounds.of(taken.account_id), taken.sequence
        by_round = self._of_pipeline[pipeline]
        while entry := by_round.least(most_pixels):
            _, sequence, account_id, _ = entry
            ticket = self._oldest.get(account_id)
            noted = ticket is not None and ticket.sequence == sequence
            if noted and (self._rounds.of(account_id), sequence) >= its_turn:
                return
            by_round.pop(entry)
            if noted:
                yield self._oldest.pop(account_id)
        if by_round.least(float("inf")) is None:
            del self._of_pipeline[pipeline]
