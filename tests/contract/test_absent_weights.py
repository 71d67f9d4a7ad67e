"""One thing that lacks its weights: only who asks for it is refused, early, with what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.messages import Absent
from pipelines.request import Lora, TextToImage
from server import errors
from tests.contract.parameters.stage import ENTERPRISE, Stage, opened

KOLORS = Absent("kolors", "pipelines", "its weights are not here", "run `understudy weights pull kolors`")
SD15 = "stable-diffusion-v1-5"
CHECKER = Absent("photographs", "pipelines", "gone", "run `understudy weights pull`", part="safety_checker")
LORA = Absent("fox", "loras", "its file is empty", "call delete_model for fox", also=("reynard",))
ANNOTATOR = Absent("canny", "controlnets", "gone", "run `understudy weights pull canny`", part="annotator")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("absent")) as stage:
        yield stage


@pytest.fixture(autouse=True)
def missing(stage: Stage) -> Iterator[None]:
    stage.engine.absences = (KOLORS, CHECKER, LORA, ANNOTATOR)
    yield
    stage.engine.absences = ()


def balance(stage: Stage) -> Any:
    return stage.client.get("/v1/get-user-credits", headers={"x-api-key": stage.key}).json()


def test_a_pipeline_without_weights_is_refused_in_segminds_dialect_and_costs_nothing(stage: Stage) -> None:
    before, drawn = balance(stage), len(stage.engine.requests)
    for version in ("v1", "v2"):
        answer = stage.send("POST", f"/{version}/kolors", {"prompt": "a boat"})
        assert answer.status_code == 503
        assert answer.json() == {
            "error": "kolors is unavailable: its weights are not here. "
            "To mend it, run `understudy weights pull kolors`"
        }
        assert "retry-after" not in answer.headers
    assert (balance(stage), len(stage.engine.requests)) == (before, drawn)


@pytest.mark.parametrize(
    ("path", "status"), [(f"{ENTERPRISE}/text2img", 200), ("/api/v7/images/text-to-image", 503)]
)
def test_and_in_the_enterprise_dialect(stage: Stage, path: str, status: int) -> None:
    stage.engine.absences = (Absent(SD15, "pipelines", "its weights are not here", "run `it`"),)
    before = balance(stage)
    answer = stage.send("POST", path, {"model_id": SD15, "prompt": "a boat"})
    assert answer.status_code == status
    assert (
        answer.json()["message"] == f"{SD15} is unavailable: its weights are not here. To mend it, run `it`"
    )
    assert "retry-after" not in answer.headers
    assert balance(stage) == before


def test_everything_else_is_drawn(stage: Stage) -> None:
    stage.engine.absences = (KOLORS,)
    assert stage.send("POST", "/v1/kandinsky2.2-txt2img", {"prompt": "a boat"}).status_code == 200
    assert stage.ask("text2img", model_id=SD15, prompt="a boat")["status"] == "success"


def test_a_missing_safety_checker_refuses_only_who_wants_it(stage: Stage) -> None:
    fields = {"model_id": "photographs", "prompt": "a boat"}
    wanted = stage.ask("text2img", **fields, safety_checker="yes")
    assert wanted["message"] == (
        "the safety checker of photographs is unavailable: gone. To mend it, run `understudy weights pull`"
    )
    assert stage.ask("text2img", **fields, safety_checker="no")["status"] == "success"


def test_readyz_says_ready_with_what_is_missing(stage: Stage) -> None:
    answer = stage.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["missing"][:2] == [
        {
            "name": "kolors",
            "kind": "pipelines",
            "reason": "its weights are not here",
            "remedy": "run `understudy weights pull kolors`",
        },
        {
            "name": "photographs",
            "kind": "pipelines",
            "part": "safety_checker",
            "reason": "gone",
            "remedy": "run `understudy weights pull`",
        },
    ]
    stage.engine.absences = ()
    assert stage.client.get("/readyz").json() == {"status": "ready"}


def test_a_missing_adapter_is_found_by_each_of_its_names(stage: Stage) -> None:
    def request(lora: str) -> TextToImage:
        return TextToImage(
            pipeline=SD15, prompt="a boat", width=64, height=64, num_inference_steps=1, guidance_scale=1.0,
            seeds=(1,), loras=(Lora(name=lora),),
        )  # fmt: skip

    for name in ("fox", "reynard"):
        with pytest.raises(errors.NotHere, match="fox is unavailable: its file is empty"):
            stage.services.dispatch.refuse_if_absent(request(name))
    stage.services.dispatch.refuse_if_absent(request("another"))
