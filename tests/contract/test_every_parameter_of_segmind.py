"""Every parameter and value of Segmind's operations is sent, and does what its row says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.parameters import segmind_pages, segmind_stable_diffusion
from tests.contract.parameters.rows import Page, Row
from tests.contract.parameters.stage import HEADERS, Stage, opened
from tests.contract.parameters.tables import SEGMIND_PAGES, cases
from tests.running_server import eventually


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize(("page", "row"), cases(SEGMIND_PAGES))
def test_a_value_has_its_effects_and_without_it_there_are_none(stage: Stage, page: Page, row: Row) -> None:
    trial = page.tried(stage, row)
    assert trial.found == trial.expected
    assert trial.found_without == []
    assert trial.refused_without == ""


MODEL_PAGES = (*segmind_pages.PAGES, *segmind_stable_diffusion.PAGES)


@pytest.mark.parametrize("page", MODEL_PAGES, ids=lambda page: page.path)
def test_v2_draws_the_same_of_a_body_with_every_parameter(stage: Stage, page: Page) -> None:
    body = {**page.body, **{row.parameter: row.value for row in page.rows if row.parameter not in HEADERS}}
    (drawn,) = stage.outcome("POST", page.path, body).requests
    before = len(stage.engine.requests)
    queued = stage.send("POST", page.path.replace("/v1/", "/v2/"), body).json()
    images = eventually(lambda: stage.send("GET", queued["response_url"], {}).json().get("images"))
    assert stage.engine.requests[before:] == [drawn]
    assert [image["content_type"] for image in images] == ["image/png"] * len(drawn.seeds)
    assert len(drawn.seeds) == (1 if page is segmind_stable_diffusion.ESRGAN else 3)
