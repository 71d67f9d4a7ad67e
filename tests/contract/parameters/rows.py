"""The form of the tables: an operation, and for each of its parameters what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.contract.parameters.effects import NOTHING, Effect
from tests.contract.parameters.stage import Outcome, Stage

Value: TypeAlias = object
"""A value of JSON; or a function that gets one of the running server when the call is made."""

WHO_CALLS = ("key", "x-api-key")
"""A call that is about one of these parameters carries no API key beside it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter with one value, and what becomes of it.

    Attributes:
        effects: what the value leads to; none of it is found without the value.
        beside: what has to be sent with the parameter so that it can have an effect.
        instead: what is sent in its place when the effects have to be absent. By default nothing is; the
            value that means the same as nothing needs another one.
        times: how many equal calls are made.
    """

    parameter: str
    value: Value
    effects: tuple[Effect, ...]
    beside: Mapping[str, Value]
    instead: Value
    times: int

    def __str__(self) -> str:
        name = getattr(self.value, "__name__", None) or str(self.value)
        return f"{self.parameter}={name if len(name) < 50 else name[:20] + '...'}"


def row(
    parameter: str,
    value: Value,
    *effects: Effect,
    beside: Mapping[str, Value] | None = None,
    instead: Value = NOTHING,
    times: int = 1,
) -> Row:
    """See `Row`."""
    return Row(parameter, value, effects, beside or {}, instead, times)


def every(
    parameter: str,
    effects: Mapping[Any, Effect],
    *,
    default: object = NOTHING,
    instead: Value = NOTHING,
    beside: Mapping[str, Value] | None = None,
) -> Iterator[Row]:
    """A row for each value of an enumeration.

    Args:
        default: the value that means the same as nothing; it is compared with another one.
    """
    for value, effect in effects.items():
        another = next(each for each in effects if each != value) if value == default else instead
        yield row(parameter, value, effect, beside=beside, instead=another)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a row, effect by effect.

    Attributes:
        expected: what the row says.
        found: what became of the call in the same places.
        found_without: names of what became of the call without the value as well.
        refused_without: why the call without the value was refused, where that is not for want of it; a call
            that fails for another reason says nothing about the value.
    """

    expected: list[dict[str, object]]
    found: list[dict[str, object]]
    found_without: list[str]
    refused_without: str


@dataclass(frozen=True, slots=True)
class Page:
    """A documented operation.

    Attributes:
        path: as the OpenAPI document has it.
        body: parameters with which it answers well, and quickly.
    """

    path: str
    body: Mapping[str, Value]
    rows: tuple[Row, ...]
    method: str = "POST"

    def tried(self, stage: Stage, row: Row) -> Trial:
        """Send what a row sends, and the same without its value."""
        sent = _current(row.value, stage)
        expected = [effect.expected(sent) for effect in row.effects]
        outcome = self._outcome(stage, row, {**self.body, **row.beside, row.parameter: sent})
        without = self._outcome_without(stage, row)
        return Trial(
            expected=expected,
            found=[effect.found_in(outcome) for effect in row.effects],
            found_without=[
                name
                for effect, values in zip(row.effects, expected, strict=True)
                for name, value in effect.found_in(without).items()
                if value == values[name]
            ],
            refused_without="" if _is_for_want_of(row, without.refusal) else without.refusal,
        )

    def _outcome_without(self, stage: Stage, row: Row) -> Outcome:
        """The outcome of the call without the value; rows that make the same call share it."""
        parameters = {**self.body, **row.beside, row.parameter: row.instead}
        if row.instead is NOTHING:
            del parameters[row.parameter]
        call = f"{self.method} {self.path} {parameters} {row.parameter in WHO_CALLS} {row.times}"
        if call not in stage.remembered:
            stage.remembered[call] = self._outcome(stage, row, parameters)
        return stage.remembered[call]

    def _outcome(self, stage: Stage, row: Row, parameters: Mapping[str, Value]) -> Outcome:
        current = {name: _current(value, stage) for name, value in parameters.items()}
        keyless = row.parameter in WHO_CALLS
        return stage.outcome(self.method, self.path, current, keyless=keyless, times=row.times)


def _current(value: Value, stage: Stage) -> object:
    return value(stage) if callable(value) else value


def _is_for_want_of(row: Row, refusal: str) -> bool:
    """Whether a refusal names the row's parameter, or is about the value that was sent instead."""
    return row.instead is not NOTHING or row.parameter in WHO_CALLS or row.parameter in refusal
