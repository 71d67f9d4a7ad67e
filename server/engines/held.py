"""What an engine holds, in pixels, with its sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from pipelines.group import GroupKey

K = TypeVar("K", bound=Hashable)


class _Sums(Generic[K]):
    """Pixels by what has any tickets, even such of no pixels."""

    def __init__(self) -> None:
        self.pixels: dict[K, int] = {}
        self._tickets: Counter[K] = Counter()

    def add(self, name: K, pixels: int) -> None:
        self.pixels[name] = self.pixels.get(name, 0) + pixels
        self._tickets[name] += 1

    def remove(self, name: K, pixels: int) -> None:
        self.pixels[name] -= pixels
        self._tickets[name] -= 1
        if not self._tickets[name]:
            del self.pixels[name], self._tickets[name]


class Held(Mapping[GroupKey, int]):
    """The pixels that an engine holds, by the keys of their groups.

    Attributes:
        total: all of them.
    """

    def __init__(self, pixels: Mapping[GroupKey, int] | None = None) -> None:
        self.total = 0
        self._of_group: _Sums[GroupKey] = _Sums()
        self._of_pipeline: _Sums[str] = _Sums()
        for key, held in (pixels or {}).items():
            self.add(key, held)

    def __getitem__(self, key: GroupKey) -> int:
        return self._of_group.pixels[key]

    def __iter__(self) -> Iterator[GroupKey]:
        return iter(self._of_group.pixels)

    def __len__(self) -> int:
        return len(self._of_group.pixels)

    @property
    def pipelines(self) -> frozenset[str]:
        """The pipelines with which the engine draws."""
        return frozenset(self._of_pipeline.pixels)

    def of_pipeline(self, name: str) -> int:
        """The pixels of all groups of a pipeline."""
        return self._of_pipeline.pixels.get(name, 0)

    def add(self, key: GroupKey, pixels: int) -> None:
        """Count a ticket that the engine was given."""
        self.total += pixels
        self._of_group.add(key, pixels)
        self._of_pipeline.add(key.pipeline, pixels)

    def remove(self, key: GroupKey, pixels: int) -> None:
        """Count no more a ticket that the engine has no longer."""
        self.total -= pixels
        self._of_group.remove(key, pixels)
        self._of_pipeline.remove(key.pipeline, pixels)
