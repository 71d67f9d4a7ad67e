"""Fields that hold several values: names in a comma list, and a number for each of them."""

from __future__ import annotations

from server.errors import FieldError

NOTHING = frozenset({"no", "none", "null"})
"""The words by which clients, and a sample of the V3 page, say that no adapter is meant."""


def named(text: str | None) -> list[str]:
    """The names in a comma list of adapters; none where one of the words of `NOTHING` is all there is."""
    names = comma_list(text)
    return [] if len(names) == 1 and names[0].lower() in NOTHING else names


def comma_list(text: str | None) -> list[str]:
    """The items of a comma list, without the white space around them."""
    return [item.strip() for item in (text or "").split(",") if item.strip()]


def number_for_each(
    names_field: str,
    names: list[str],
    numbers_field: str,
    given: str | float | None,
    lowest: float,
    highest: float,
) -> list[float]:
    """A number for each name: 1 by default, one for all, or a comma list.

    Args:
        names: the items of ``names_field``.
        given: the value of ``numbers_field``.
    Raises:
        FieldError: these are not numbers within the bounds, or not as many as names.
    """
    try:
        numbers = [float(text) for text in comma_list(None if given is None else str(given))] or [1.0]
    except ValueError:
        raise FieldError(numbers_field, "must be numbers, separated by commas") from None
    if not all(lowest <= number <= highest for number in numbers):
        raise FieldError(numbers_field, f"must be between {lowest} and {highest}")
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names):
        raise FieldError(numbers_field, f"must be one number, or one for each {names_field}")
    return numbers
