"""The README's table of every parameter and value, and where each is tested.

Parameters and values are read from the OpenAPI document that the server makes of its own code, tests are
collected by pytest. A test is about a parameter when its module speaks of the page and the test itself, its
parameters or the constants that it uses name the parameter; about a value when they name the value. Tests of
the repository's own form are about neither.

Run: ``python -m tests.documented`` writes the table, ``--check`` only compares. Exit status 1, with the
names, when something that is documented has no test or the README is not up to date.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from server.app import create_app
from server.settings import Settings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- parameters: python -m tests.documented -->", "<!-- end of parameters -->"

LAYERS = ("contract", "meaning", "integration", "clients", "tiny", "unit", "conformance")
"""Folders of `tests/` whose tests can be about a parameter; earlier ones are told first."""

SHOWN = 2

SHARED = ("text2img", "img2img", "inpaint", "controlnet")
"""Pages with the fields of one class; a parameter of all of them is told once."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One documented parameter. ``values``: those of an enumeration, else empty."""

    pages: tuple[str, ...]
    name: str
    allowed: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One test function: where it is, which pages its module speaks of, all texts that it names."""

    place: str
    module_text: str
    words: frozenset[str]


def parameters() -> list[Parameter]:
    """Every parameter of every body, in the document's order; one of several shared pages once."""
    found: dict[tuple[str, str], Parameter] = {}
    pages: dict[tuple[str, str], list[str]] = {}
    for path, operations in create_app(Settings()).openapi()["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" not in content or path.startswith("/v2/"):
            continue  # /v2 takes the body of /v1
        page = path.rsplit("/", 1)[1] if "{" not in path else path.split("/")[-2]
        for name, property_ in content["application/json"]["schema"].get("properties", {}).items():
            allowed, values = _allowed(property_)
            row = ("shared" if page in SHARED else page, name)
            found.setdefault(row, Parameter((), name, allowed, values))
            pages.setdefault(row, [])
            if page not in pages[row]:
                pages[row].append(page)
    return [Parameter(tuple(pages[row]), each.name, each.allowed, each.values) for row, each in found.items()]


def _allowed(property_: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    choices = [choice for choice in property_.get("anyOf", [property_]) if choice.get("type") != "null"]
    values = tuple(str(value) for choice in choices for value in choice.get("enum", ()))
    if values:
        return ", ".join(values), values
    said: list[str] = []
    for choice in choices:
        low, high = choice.get("minimum"), choice.get("maximum")
        limits = f" {low}..{high}" if low is not None and high is not None and high < 2**63 else ""
        said.append(f"{choice.get('type', 'any')}{limits}")
    return " or ".join(dict.fromkeys(said)), ()


class _Collected:
    """pytest plugin: the items of a collection."""

    def __init__(self) -> None:
        self.items: list[pytest.Function] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = [item for item in session.items if isinstance(item, pytest.Function)]


def evidence() -> list[Evidence]:
    """Every test function, with the words of all its parameter sets together."""
    collected = _Collected()
    folders = [str(ROOT / "tests" / layer) for layer in LAYERS]
    arguments = ["--collect-only", "-q", "-q", "-n0", "-p", "no:cacheprovider", *folders]
    if pytest.main(arguments, plugins=[collected]):
        raise SystemExit("the tests cannot be collected")
    words: dict[str, set[str]] = {}
    modules: dict[str, ModuleType] = {}
    for item in collected.items:
        place = f"{item.path.relative_to(ROOT).as_posix()}::{item.originalname}"
        if place not in words:
            words[place] = set(_named_in(item.function))
            modules[place] = item.module
        if hasattr(item, "callspec"):
            words[place] |= set(_texts(item.callspec.params))
    return [Evidence(place, _source(modules[place]), frozenset(each)) for place, each in words.items()]


@cache
def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text()


def _named_in(function: Any, depth: int = 2) -> Iterator[str]:
    """Texts and keyword names in a function, in the module's constants and functions that it uses."""
    for node in ast.walk(ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))):
        match node:
            case ast.Constant(value=str() | int() | float() as value):
                yield str(value)
            case ast.keyword(arg=str() as name):
                yield name
            case ast.Name(id=name) if depth and name in function.__globals__:
                used = function.__globals__[name]
                if inspect.isfunction(used) and used.__module__ == function.__module__:
                    yield from _named_in(used, depth - 1)
                elif isinstance(used, str | dict | list | tuple):
                    yield from _texts(used)
            case _:
                pass


def _texts(value: object) -> Iterator[str]:
    """Every text in a value, however nested."""
    match value:
        case str() | bool() | int() | float():
            yield str(value)
        case Mapping():
            for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(key)
                yield from _texts(inner)
        case list() | tuple() | set() | frozenset():
            for inner in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(inner)
        case _:
            name = getattr(value, "name", None)
            if isinstance(name, str):
                yield name


def rows(found: list[Parameter], tests: list[Evidence]) -> tuple[list[str], list[str]]:
    """The table's lines, and what has no test."""
    lines, missing = ["| page | parameter | allowed | tested in |", "|---|---|---|---|"], []
    named = frozenset[str]().union(*(test.words for test in tests))
    for parameter in found:
        about = [
            test
            for test in tests
            if parameter.name in test.words and any(page in test.module_text for page in parameter.pages)
        ]
        where = ", ".join(parameter.pages)
        if not about:
            missing.append(f"{where}: {parameter.name}")
        missing += [
            f"{where}: {parameter.name} = {value}" for value in parameter.values if value not in named
        ]
        lines.append(f"| {where} | {parameter.name} | {parameter.allowed} | {_places(parameter, about)} |")
    return lines, missing


def _places(parameter: Parameter, about: Iterable[Evidence]) -> str:
    """The tests that say most of the parameter and least of anything else, at most one of each file."""
    subjects = {re.sub(r"\W", "", page.partition("-")[0]) for page in parameter.pages}

    def digression(test: Evidence) -> tuple[bool, bool, bool, int, int]:
        _, layer, file = test.place.partition("::")[0].split("/")
        return (
            not any(subject in file for subject in subjects),
            parameter.name not in test.place,
            test.words.isdisjoint(parameter.pages),
            LAYERS.index(layer),
            len(test.words),
        )

    best: dict[str, str] = {}
    for test in sorted(about, key=digression):
        file, _, name = test.place.partition("::")
        best.setdefault(file, f"`{file.removeprefix('tests/')}::{name}`")
    return "<br>".join(list(best.values())[:SHOWN])


def main() -> int:
    lines, missing = rows(parameters(), evidence())
    for each in missing:
        print(f"no test names {each}", file=sys.stderr)
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    updated = f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"
    if "--check" not in sys.argv:
        README.write_text(updated)
    elif text != updated:
        print("the README's table is not up to date: python -m tests.documented", file=sys.stderr)
        return 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
