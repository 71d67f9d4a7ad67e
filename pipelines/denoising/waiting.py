"""The requests that wait for a place in the loop, by the pipelines that they need."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from pipelines.denoising.active_request import ActiveRequest
from pipelines.request import pipelines_of

Needed: TypeAlias = tuple[str, ...]
"""The pipelines that a request needs: `pipelines.request.pipelines_of` it."""


class _Lane:
    """The requests that need the same pipelines, by their pixels."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._of_size: dict[int, OrderedDict[ActiveRequest, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def add(self, active: ActiveRequest, number: int, *, first: bool = False) -> None:
        pixels = active.request.pixels
        if pixels not in self._of_size:
            self._of_size[pixels] = OrderedDict()
            insort(self._sizes, pixels)
        self._of_size[pixels][active] = number
        if first:
            self._of_size[pixels].move_to_end(active, last=False)

    def remove(self, active: ActiveRequest) -> None:
        pixels = active.request.pixels
        del self._of_size[pixels][active]
        if not self._of_size[pixels]:
            del self._of_size[pixels]
            self._sizes.remove(pixels)

    def oldest_within(self, most_pixels: float) -> tuple[int, ActiveRequest] | None:
        """The oldest request that has no more pixels, with its number; sizes beyond are not looked at."""
        oldest: tuple[int, ActiveRequest] | None = None
        for pixels in self._sizes:
            if pixels > most_pixels:
                break
            active, number = next(iter(self._of_size[pixels].items()))
            if oldest is None or number < oldest[0]:
                oldest = number, active
        return oldest


class Waiting:
    """The requests that wait, in the order in which they came.

    What it costs to find the next one follows from how many different pipelines are asked for, and not from
    how many requests wait.
    """

    def __init__(self) -> None:
        self._came = 0
        self._put_back = 0
        self._all: OrderedDict[str, ActiveRequest] = OrderedDict()
        self._lanes: dict[Needed, _Lane] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, active: ActiveRequest) -> None:
        """Let a request line up behind the others."""
        self._came += 1
        self._all[active.ticket_id] = active
        self._lanes.setdefault(pipelines_of(active.request), _Lane()).add(active, self._came)

    def put_back(self, active: ActiveRequest) -> None:
        """Let a request be the first one again."""
        self._put_back -= 1
        self._all[active.ticket_id] = active
        self._all.move_to_end(active.ticket_id, last=False)
        lane = self._lanes.setdefault(pipelines_of(active.request), _Lane())
        lane.add(active, self._put_back, first=True)

    def remove(self, ticket_id: str) -> None:
        """Take a request out, if it waits."""
        active = self._all.pop(ticket_id, None)
        if active is None:
            return
        needed = pipelines_of(active.request)
        self._lanes[needed].remove(active)
        if not self._lanes[needed]:
            del self._lanes[needed]

    def oldest(self) -> ActiveRequest:
        """The request that came first; there has to be one."""
        return next(iter(self._all.values()))

    def oldest_within(self, room: Callable[[Needed], float]) -> ActiveRequest | None:
        """The oldest request for which there is room.

        Args:
            room: the most pixels of a request that needs these pipelines.
        """
        found = (lane.oldest_within(room(needed)) for needed, lane in self._lanes.items())
        oldest = min((each for each in found if each is not None), key=lambda each: each[0], default=None)
        return None if oldest is None else oldest[1]
