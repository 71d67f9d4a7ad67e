"""The pace of opening a checkpoint: whether it has the interpreter for itself, or shares it with a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Pace(Protocol):
    """How opening a checkpoint leaves room for what the same process does beside it."""

    def pause(self) -> None:
        """Let others have the interpreter for a moment, where they want it; called between small pieces."""
        ...

    def alone(self, work: Callable[[], T]) -> T:
        """Do what must not happen beside anything else, because it changes global state for a while."""
        ...


class AtOnce:
    """The pace of who has nothing else to do."""

    def pause(self) -> None:
        pass

    def alone(self, work: Callable[[], T]) -> T:
        return work()
