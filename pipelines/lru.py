"""LRUCache: a bounded memory of the values that were used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Keeps values by key; those unused for longest leave when the bound is passed.

    Where the values are networks (VAEs, ControlNets, preprocessors), the cache is also what is on the device:
    a value that leaves frees its memory there.

    Args:
        bound: the largest sum of all sizes. The newest value stays even when it alone is larger.
        size: the size of a value; by default each counts one.
    """

    def __init__(self, bound: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._bound = bound
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of that key, made first if it is not kept. When ``make`` raises, nothing is kept."""
        if key not in self._values:
            self._values[key] = make()
            self._evict()
        self._values.move_to_end(key)
        return self._values[key]

    def __contains__(self, key: K) -> bool:
        """Whether the value of that key is kept; asking is no use of it."""
        return key in self._values

    def clear(self) -> None:
        """Drop every value."""
        self._values.clear()

    def items(self) -> Iterator[tuple[K, V]]:
        """Every key and its value, the least recently used first."""
        return iter(self._values.items())

    def _evict(self) -> None:
        total = sum(self._size(value) for value in self._values.values())
        while total > self._bound and len(self._values) > 1:
            total -= self._size(self._values.popitem(last=False)[1])
