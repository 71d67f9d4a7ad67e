"""Find a network's tensors in a file, in whichever of their names it has them. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.layouts.numbers import NOT_WEIGHTS
from pipelines.weights.layouts.tensors import Expected

Change = Literal["none", "transposed", "first third", "second third", "last third"]
"""What has to be done with a tensor of a file before the network can take it."""

Spelling = tuple[str, Change]
"""A name that a tensor may have in a file, and what has to be done with it there."""

_THIRDS: tuple[Change, ...] = ("first third", "second third", "last third")


_OTHER_SHAPE = "has another shape than is drawn with here"


@dataclass(frozen=True, slots=True)
class Taken:
    """A tensor of a file that a network takes; it gets ``shape``, which has as many numbers.

    Attributes:
        key: its name in the file.
    """

    key: str
    change: Change
    shape: tuple[int, ...]


Placed = dict[str, Taken]
"""What a network takes from a file, by the names of the network's own tensors."""


def place(
    expected: Iterable[Expected],
    shapes: Shapes,
    spellings: Callable[[Expected], Iterable[Spelling]],
    what: str,
) -> Placed:
    """Find every tensor of a network.

    Args:
        spellings: the names that a tensor may have in the file, best first.
        what: the network's name in the error.
    Raises:
        Unrecognised: a tensor is missing, or has another shape; the error names it.
    """
    placed: Placed = {}
    for each in expected:
        found = next((spelling for spelling in spellings(each) if spelling[0] in shapes), None)
        if found is None:
            raise Unrecognised(f"its {what} {_OTHER_SHAPE}: it lacks {each.original}")
        key, change = found
        if not _fits(shapes[key], each.shape, change):
            given = "x".join(map(str, shapes[key]))
            wanted = "x".join(map(str, each.shape))
            raise Unrecognised(f"its {what} {_OTHER_SHAPE}: {key} is {given}, not {wanted}")
        placed[each.name] = Taken(key, change, each.shape)
    return placed


def demand_nothing_else(own: Shapes, taken: Collection[str], what: str) -> None:
    """Refuse a network with layers that would not be drawn with.

    Args:
        own: the tensors that the file has below the network's prefix.
        taken: the names of those that the network takes.
        what: the network's name in the error.
    Raises:
        Unrecognised: there are others; the error names one.
    """
    others = [
        name
        for name, shape in own.items()
        if name not in taken and not name.endswith(NOT_WEIGHTS) and shape != (0,)
    ]
    if others:
        raise Unrecognised(
            f"its {what} has layers that are not drawn with here ({len(others)}, as {min(others)})"
        )


def thirds(each: Expected, key: str, layers: tuple[str, ...]) -> Iterator[Spelling]:
    """The spelling of queries, keys and values that lie in one tensor of a file.

    Args:
        layers: the parts of names by which queries, keys and values are told.
    """
    for layer, change in zip(layers, _THIRDS, strict=True):
        if f".{layer}." in each.name:
            yield key, change


def _fits(given: tuple[int, ...], wanted: tuple[int, ...], change: Change) -> bool:
    if change == "transposed":
        given = given[::-1]
    elif change != "none":
        if given[0] != 3 * wanted[0]:
            return False
        given = (wanted[0], *given[1:])
    # A linear layer and a convolution of one pixel are the same.
    return _without_ones(given) == _without_ones(wanted)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *(side for side in shape[1:] if side != 1))
