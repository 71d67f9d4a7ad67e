"""Every documented parameter and value, as the server's own OpenAPI document has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.contract.parameters.rows import Page


class Parameter(NamedTuple):
    """One parameter of one operation; the path is as the document has it."""

    method: str
    path: str
    name: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.name}"


def documented(openapi: Mapping[str, Any]) -> dict[Parameter, tuple[object, ...]]:
    """The parameters of all bodies, paths and headers, each with its values if it is an enumeration."""
    schemes = openapi["components"]["securitySchemes"]
    found: dict[Parameter, tuple[object, ...]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            for name, schema in _parameters(operation, schemes):
                parameter = Parameter(method.upper(), path, name)
                found[parameter] = (*found.get(parameter, ()), *_values(schema))
    return {parameter: tuple(dict.fromkeys(values)) for parameter, values in found.items()}


def without_row(found: Mapping[Parameter, tuple[object, ...]], pages: Iterable[Page]) -> list[str]:
    """The names of documented parameters and values that the tables do not have."""
    sent = _sent(pages)
    names = [str(parameter) for parameter in found if parameter not in sent]
    for parameter, values in found.items():
        names += [f"{parameter} = {value}" for value in values if value not in sent.get(parameter, [])]
    return names


def undocumented(found: Mapping[Parameter, tuple[object, ...]], pages: Iterable[Page]) -> list[str]:
    """The names of parameters and values of the tables that are not documented."""
    names: list[str] = []
    for parameter, values in _sent(pages).items():
        if parameter not in found:
            names.append(str(parameter))
        elif found[parameter]:
            names += [f"{parameter} = {value}" for value in values if value not in found[parameter]]
    return names


def _sent(pages: Iterable[Page]) -> dict[Parameter, list[object]]:
    """The values that the tables send, by parameter."""
    sent: dict[Parameter, list[object]] = {}
    for page in pages:
        for row in page.rows:
            sent.setdefault(Parameter(page.method, page.path, row.parameter), []).append(row.value)
    return sent


def _parameters(
    operation: Mapping[str, Any], schemes: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and schema of each parameter of an operation; one of the body once for each encoding."""
    # The first way of a key; the others are the same for all pages, and have tests of their own.
    for scheme in [*operation.get("security", [{}])[0]]:
        if schemes[scheme]["in"] == "header" and schemes[scheme]["name"] == "x-api-key":
            yield schemes[scheme]["name"], {}
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], parameter["schema"]
    for encoding in operation.get("requestBody", {}).get("content", {}).values():
        yield from encoding["schema"]["properties"].items()


def _values(schema: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(value for choice in schema.get("anyOf", [schema]) for value in choice.get("enum", ()))
