"""LRUCache keeps what was used last, within its bound."""

from __future__ import annotations

import pytest

from pipelines.lru import LRUCache


def made(values: list[str], name: str):
    """A function that notes that it made the value of that name."""

    def make() -> str:
        values.append(name)
        return name

    return make


def test_a_value_is_made_once_and_the_one_unused_for_longest_leaves() -> None:
    recent: LRUCache[str, str] = LRUCache(2)
    calls: list[str] = []
    for name in ("a", "b", "a", "c", "a", "b"):
        assert recent.get(name, made(calls, name)) == name
    assert calls == ["a", "b", "c", "b"]
    assert [key for key, _ in recent.items()] == ["a", "b"]


def test_the_bound_is_of_sizes() -> None:
    recent: LRUCache[str, str] = LRUCache(5, len)
    for value in ("aaa", "bb", "cc"):
        recent.get(value, lambda value=value: value)
    assert [key for key, _ in recent.items()] == ["bb", "cc"]


def test_a_value_larger_than_the_bound_stays_until_the_next() -> None:
    recent: LRUCache[str, str] = LRUCache(2, len)
    assert recent.get("large", lambda: "large") == "large"
    recent.get("b", lambda: "b")
    assert [key for key, _ in recent.items()] == ["b"]


def test_a_failure_is_not_remembered() -> None:
    recent: LRUCache[str, str] = LRUCache(2)

    def fail() -> str:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        recent.get("a", fail)
    assert recent.get("a", lambda: "there") == "there"
