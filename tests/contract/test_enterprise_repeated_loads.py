"""A thing that is loaded again under its name: the same is here already, another one is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.parameters.stage import Stage, opened


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize("origin", ["their/lora", "http://127.0.0.1:9/lora?token=1"])
def test_the_same_thing_is_not_loaded_twice_and_the_answer_says_so(stage: Stage, origin: str) -> None:
    fields = {"model_id": "twice", "webhook": "http://127.0.0.1:9/"}
    assert "warning" not in stage.ask("load_model", url=origin, **fields)
    assert stage.loading_problem("twice") is None
    wanted, announced = len(stage.loader.wanted), len(stage.run(stage.services.webhooks.all))
    again = stage.ask("load_model", url=origin.replace("token=1", "token=2"), **fields)
    assert (again["status"], again["message"]) == ("success", "model load started")
    assert again["warning"] == "twice is on this server already, and nothing was loaded"
    assert len(stage.loader.wanted) == wanted
    assert len(stage.run(stage.services.webhooks.all)) == announced + 1
    stage.ask("delete_model", model_id="twice")


def test_another_thing_of_that_name_is_refused(stage: Stage) -> None:
    stage.ask("load_model", url="their/lora", model_id="taken")
    assert stage.loading_problem("taken") is None
    refused = stage.ask("load_model", url="other/lora", model_id="taken")
    assert refused["message"] == {"model_id": ["model_id taken is on this server already; delete it first"]}
    stage.ask("delete_model", model_id="taken")
