"""Every parameter and value of the enterprise operations is sent, and does what its row says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.parameters.rows import Page, Row
from tests.contract.parameters.stage import Stage, opened
from tests.contract.parameters.tables import ENTERPRISE_PAGES, cases


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize(("page", "row"), cases(ENTERPRISE_PAGES))
def test_a_value_has_its_effects_and_without_it_there_are_none(stage: Stage, page: Page, row: Row) -> None:
    trial = page.tried(stage, row)
    assert trial.found == trial.expected
    assert trial.found_without == []
    assert trial.refused_without == ""
