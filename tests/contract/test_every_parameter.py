"""The tables have a row for every documented parameter and value, and for nothing else.

What the rows say is shown by `test_every_parameter_of_segmind` and `test_every_parameter_of_enterprise`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from server.app import create_app
from server.settings import Settings
from tests.contract.parameters.documented import documented, undocumented, without_row
from tests.contract.parameters.families import FURTHER_PATHS
from tests.contract.parameters.tables import ENTERPRISE_PAGES, SEGMIND_PAGES

PAGES = (*SEGMIND_PAGES, *ENTERPRISE_PAGES)

KOLORS = "POST /v1/kolors"


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    """The OpenAPI document of an application that is never started."""
    return create_app(Settings()).openapi()


@pytest.fixture
def openapi(original: dict[str, Any]) -> dict[str, Any]:
    """The document without the queued pages, which are those of /v1 (see below), and without the further
    paths of enterprise's pages (see `test_enterprise_families`)."""
    changeable = deepcopy(original)
    for path in FURTHER_PATHS:
        del changeable["paths"][path]
    for path in changeable["paths"]:
        if path.startswith("/v2/"):
            changeable["paths"][path].pop("post", None)
    return changeable


def kolors_properties(openapi: dict[str, Any]) -> list[dict[str, Any]]:
    """The documented fields of Kolors in every encoding of its body."""
    content = openapi["paths"]["/v1/kolors"]["post"]["requestBody"]["content"]
    return [encoding["schema"]["properties"] for encoding in content.values()]


def test_every_documented_parameter_and_value_has_a_row(openapi: dict[str, Any]) -> None:
    assert without_row(documented(openapi), PAGES) == []


def test_every_row_is_about_something_documented(openapi: dict[str, Any]) -> None:
    assert undocumented(documented(openapi), PAGES) == []


def test_the_queued_pages_document_what_those_of_v1_do(original: dict[str, Any]) -> None:
    paths = original["paths"]
    queued = [path for path in paths if path.startswith("/v2/") and "post" in paths[path]]
    assert len(queued) == 17
    for path in queued:
        page, same = paths[path]["post"], paths[path.replace("/v2/", "/v1/")]["post"]
        for part in ("parameters", "requestBody", "security"):
            assert page[part] == same[part]


def test_a_new_parameter_is_missed(openapi: dict[str, Any]) -> None:
    kolors_properties(openapi)[0]["sharpness"] = {"type": "number"}
    assert f"{KOLORS}: sharpness" in without_row(documented(openapi), PAGES)


def test_a_new_value_is_missed(openapi: dict[str, Any]) -> None:
    kolors_properties(openapi)[0]["scheduler"]["enum"].append("HeunDiscreteScheduler")
    assert f"{KOLORS}: scheduler = HeunDiscreteScheduler" in without_row(documented(openapi), PAGES)


def test_a_new_operation_is_missed_with_its_key_and_its_header(openapi: dict[str, Any]) -> None:
    openapi["paths"]["/v1/new"] = {"post": openapi["paths"]["/v1/kolors"]["post"]}
    missed = without_row(documented(openapi), PAGES)
    assert {"POST /v1/new: x-api-key", "POST /v1/new: Idempotency-Key", "POST /v1/new: cfg"} <= {*missed}


def test_rows_of_what_is_gone_are_named(openapi: dict[str, Any]) -> None:
    for properties in kolors_properties(openapi):
        del properties["cfg"]
        properties["output_format"]["enum"] = ["jpg", "jpeg", "png"]
    named = undocumented(documented(openapi), PAGES)
    assert {f"{KOLORS}: cfg", f"{KOLORS}: output_format = webp"} <= {*named}
