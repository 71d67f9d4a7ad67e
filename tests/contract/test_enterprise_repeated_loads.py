"""A thing that is loaded again under its name: the same is here already, another one is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.parameters.stage import Stage, opened


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize("origin", ["their/lora", "http://127.0.0.1:9/lora"])
def test_the_same_thing_is_not_loaded_twice_and_the_answer_says_so(stage: Stage, origin: str) -> None:
    fields = {"model_id": "twice", "webhook": "http://127.0.0.1:9/"}
    assert "warning" not in stage.ask("load_model", url=origin, **fields)
    assert stage.loading_problem("twice") is None
    wanted, announced = len(stage.loader.wanted), len(stage.run(stage.services.webhooks.all))
    again = stage.ask("load_model", url=origin, **fields)
    assert (again["status"], again["message"]) == ("success", "model load started")
    assert again["warning"] == "twice is on this server already, and nothing was loaded"
    assert len(stage.loader.wanted) == wanted
    assert len(stage.run(stage.services.webhooks.all)) == announced + 1
    stage.ask("delete_model", model_id="twice")


@pytest.mark.parametrize(
    "other",
    [
        {"url": "other/lora"},
        {"url": "their/lora", "revision": "v2"},
        {"url": "their/embedding"},
        {"url": "http://127.0.0.1:9/their/lora"},
    ],
)
def test_another_thing_of_that_name_is_refused(stage: Stage, other: dict[str, str]) -> None:
    stage.ask("load_model", url="their/lora", model_id="taken")
    assert stage.loading_problem("taken") is None
    refused = stage.ask("load_model", **other, model_id="taken")
    assert refused["message"] == {"model_id": ["model_id taken is on this server already; delete it first"]}
    stage.ask("delete_model", model_id="taken")


def test_an_address_with_a_query_may_name_another_file(stage: Stage) -> None:
    url = "http://127.0.0.1:9/download?id={}"
    stage.ask("load_model", url=url.format(1), model_id="taken")
    stage.loading_problem("taken")
    refused = stage.ask("load_model", url=url.format(2), model_id="taken")
    assert refused["message"] == {"model_id": ["model_id taken is on this server already; delete it first"]}
    stage.ask("delete_model", model_id="taken")


def test_blanks_around_a_name_are_no_part_of_it(stage: Stage) -> None:
    stage.ask("load_model", url=" their/lora ", model_id=" My.LoRA-1_b ")
    assert stage.loading_problem("My.LoRA-1_b") is None
    for name in ("My.LoRA-1_b", " My.LoRA-1_b\n"):
        assert stage.ask("verify_model", model_id=name)["message"] == "Model exists on server"
    assert stage.ask("delete_model", model_id=" My.LoRA-1_b")["message"] == "Model deleted on server"


@pytest.mark.parametrize("name", ["me/it", "a b", "a,b", "-a", ".a", "a" * 129, "Größe", " "])
def test_a_name_that_cannot_be_had_is_refused_with_what_can(stage: Stage, name: str) -> None:
    refused = stage.ask("load_model", url="their/lora", model_id=name)["message"]["model_id"][0]
    assert refused.startswith("model_id must be 1 to 128 letters, digits, dots, dashes and underscores")


def test_a_family_that_is_not_the_one_said_is_a_warning(stage: Stage) -> None:
    """What comes is for SD1.5, whatever the caller has said."""
    stage.loader.always = "sd15"
    fields = {"model_type": "stable_diffusion_xl", "webhook": "http://127.0.0.1:9/"}
    stage.ask("load_model", url="their/checkpoint", model_id="sd", **fields)
    assert stage.loading_problem("sd") is None
    assert stage.ask("verify_model", model_id="sd")["warning"] == "it is made for sd15, not for sdxl"
    stage.loader.always = None
    stage.ask("delete_model", model_id="sd")
