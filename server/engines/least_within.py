"""A heap for each number of pixels, and the least entry of all heaps up to one of them."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import Generic, TypeVar

_BITS = 6
_DIGIT = (1 << _BITS) - 1
_LEVELS = 6
_LAST = (1 << _BITS * _LEVELS) - 1

Entry = TypeVar("Entry", bound=tuple[int, ...])


class LeastWithin(Generic[Entry]):
    """Entries, tuples whose last number is a number of pixels.

    Above the heaps stands a tree of 64 branches at a fork, each of which knows the least entry below it: to
    find the least entry up to so many pixels costs about the same however many there are.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[Entry]] = {}
        self._forks: list[defaultdict[int, dict[int, Entry]]] = [defaultdict(dict) for _ in range(_LEVELS)]

    def push(self, entry: Entry) -> None:
        """Add an entry."""
        pixels = entry[-1]
        heap = self._heaps.setdefault(pixels, [])
        heappush(heap, entry)
        if heap[0] is entry:
            self._tell(pixels, entry)

    def pop(self, entry: Entry) -> None:
        """Take out an entry that is the least one of its pixels, as every one is that was just found."""
        pixels = entry[-1]
        heap = self._heaps[pixels]
        heappop(heap)
        if heap:
            self._tell(pixels, heap[0])
        else:
            del self._heaps[pixels]
            self._tell(pixels, None)

    def least(self, most_pixels: float) -> Entry | None:
        """The least entry that has no more pixels."""
        if not self._heaps or most_pixels < 0:
            return None
        if most_pixels >= _LAST:
            return min(self._forks[-1][0].values())
        end = int(most_pixels) + 1
        least: Entry | None = None
        for forks in self._forks:
            digit, end = end & _DIGIT, end >> _BITS
            for branch, entry in forks[end].items() if end in forks else ():
                if branch < digit and (least is None or entry < least):
                    least = entry
        return least

    def _tell(self, pixels: int, least: Entry | None) -> None:
        """Tell the forks above a heap what its least entry is."""
        place = min(pixels, _LAST)
        for forks in self._forks:
            branch, place = place & _DIGIT, place >> _BITS
            fork = forks[place]
            if least is None:
                del fork[branch]
            else:
                fork[branch] = least
            if fork:
                least = min(fork.values())
            else:
                del forks[place]
                least = None
