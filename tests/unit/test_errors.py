"""The two error trees: every drawing error has its place among the errors that callers are told."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from pipelines import errors as drawing
from server import errors


def subclasses(of: type[drawing.GenerationError]) -> Iterator[type[drawing.GenerationError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from subclasses(kind)


def example(kind: type[drawing.GenerationError]) -> drawing.GenerationError:
    if issubclass(kind, drawing.InvalidInput):
        return kind("prompt", "cannot be drawn")
    if issubclass(kind, drawing.NeverFits):
        return kind("kolors", 19 * 10**9, 12 * 10**9)
    return kind("cannot be drawn")


KINDS = list(subclasses(drawing.GenerationError))
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@each
def test_every_drawing_error_but_the_unexpected_one_is_told_in_its_own_words(
    kind: type[drawing.GenerationError],
) -> None:
    told = errors.from_drawing(example(kind))
    assert isinstance(told, errors.InternalError) == (kind is drawing.DrawingFailed)


@each
def test_every_drawing_error_survives_its_way_out_of_the_engine(kind: type[drawing.GenerationError]) -> None:
    error = example(kind)
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


def test_the_unexpected_one_says_nothing_of_its_cause() -> None:
    assert "secret" not in str(errors.from_drawing(drawing.DrawingFailed("secret")))
