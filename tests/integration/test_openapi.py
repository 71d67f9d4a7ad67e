"""Whatever the published document allows or forbids: no 5xx, and no answer that it does not describe.

OPENAPI_CASES says how many cases are made for each operation.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.app import create_app
from server.settings import Settings
from tests.contract.parameters.families import FURTHER_PATHS
from tests.running_server import RunningServer

CASES = int(os.environ.get("OPENAPI_CASES", "5"))

DOCUMENT = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in DOCUMENT.get_all_operations()}


@pytest.fixture(scope="module")
def key(server: RunningServer) -> str:
    """A key that can pay for nothing: a valid body gets as far as its price, and nothing is drawn."""
    return server.account("fuzz", 0)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_answer_is_one_that_the_document_does_not_describe(server: RunningServer, key: str, label: str):
    # The pages of the other path families are the same ones again.
    further = label.partition(" ")[2] in FURTHER_PATHS

    @settings(
        max_examples=max(1, CASES // 5) if further else CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy())
    def answered_as_described(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("key"), str):
            case.body["key"] = key
        case.call_and_validate(
            base_url=server.url,
            headers={"x-api-key": key},
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    answered_as_described()
