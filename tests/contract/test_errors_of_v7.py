"""Errors below /api/v7/: their own statuses in any setting, with the body that the dialect has elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.parameters.stage import ENTERPRISE, Stage, opened

DRAWING = {"prompt": "a cat", "model_id": "drawings", "width": 256, "height": 256}


@pytest.fixture(scope="module", params=["legacy", "standard"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server"), enterprise_errors=request.param) as stage:
        yield stage


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"key": "wrong"}, 401),
        ({"model_id": "nothing"}, 404),
        ({"width": 64}, 400),
        ({"prompt": None}, 400),
        ({"scheduler": "Nothing"}, 400),
    ],
)
def test_errors_have_their_statuses(stage: Stage, changed: dict[str, Any], status: int):
    body = {"key": stage.key, **DRAWING, **changed}
    answer = stage.client.post("/api/v7/images/text-to-image", json=body)
    elsewhere = stage.client.post(f"{ENTERPRISE}/text2img", json=body)
    assert (answer.status_code, answer.json()) == (status, elsewhere.json())
    assert answer.json()["status"] == "error"


def test_what_is_right_is_drawn(stage: Stage):
    answer = stage.client.post("/api/v7/images/text-to-image", json={"key": stage.key, **DRAWING})
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    fetched = stage.client.post(f"/api/v7/images/fetch/{answer.json()['id']}", json={"key": stage.key})
    assert fetched.json()["output"] == answer.json()["output"]
