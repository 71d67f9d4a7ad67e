"""Other names of what weights.yaml has: they draw what its own names draw, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.parameters.effects import sent_picture
from tests.contract.parameters.stage import Stage, opened

SMALL = {"prompt": "a cat", "width": 256, "height": 256, "seed": 1}
PICTURE = sent_picture((1, 2, 3))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize(
    ("operation", "own", "other"),
    [
        ("text2img", {"model_id": "photographs"}, {"model_id": "studio/photographs"}),
        ("text2img", {"model_id": "photographs"}, {"model_id": "photo-1.5"}),
        ("img2img", {"model_id": "photographs"}, {"model_id": "photo-1.5"}),
        ("inpaint", {"model_id": "photographs"}, {"model_id": "photo-1.5"}),
        ("text2img", {"lora_model": "more_details,pencil"}, {"lora_model": "more_details, studio/pencil"}),
        ("text2img", {"vae": "soft"}, {"vae": "studio/soft"}),
        ("controlnet", {"controlnet_model": "canny"}, {"controlnet_model": "studio/canny"}),
        ("controlnet", {"controlnet_model": "depth,canny"}, {"controlnet_model": "depth,studio/canny"}),
        ("super_resolution", {"model_id": "fine"}, {"model_id": "studio/fine"}),
    ],
)
def test_another_name_asks_for_the_same_picture(
    stage: Stage, operation: str, own: dict[str, Any], other: dict[str, Any]
) -> None:
    sent = {"init_image": PICTURE, "url": PICTURE} if operation != "text2img" else {}
    if operation == "inpaint":
        sent["mask_image"] = sent_picture((255, 255, 255))
    asked = []
    for names in (own, other):
        before = len(stage.engine.requests)
        answer = stage.ask(operation, **{"model_id": "photographs", **SMALL, **sent, **names})
        assert answer["status"] == "success", answer
        asked.append(stage.engine.requests[before:])
    assert asked[0] == asked[1]
    assert asked[0]


def test_the_answer_repeats_the_name_that_was_said(stage: Stage) -> None:
    answer = stage.ask("text2img", model_id="studio/photographs", lora_model="studio/pencil", **SMALL)
    assert (answer["meta"]["model_id"], answer["meta"]["lora"]) == ("studio/photographs", "studio/pencil")


def test_an_embedding_is_the_word_that_was_said(stage: Stage) -> None:
    stage.ask("text2img", model_id="photographs", embeddings_model="BadHands v2", **SMALL)
    assert stage.engine.requests[-1].embeddings == ("BadHands v2",)


@pytest.mark.parametrize(
    "name", ["studio/photographs", "photo-1.5", "studio/pencil", "BadHands v2", "studio/soft", "studio/canny"]
)
def test_another_name_is_verified_and_can_neither_be_loaded_nor_deleted(stage: Stage, name: str) -> None:
    assert stage.ask("verify_model", model_id=name)["message"] == "Model exists on server"
    refused = stage.ask("delete_model", model_id=name)["message"]["model_id"][0]
    place = "which stands in this server's weights.yaml"
    words = f"model_id {name} is another name of {stage.services.manifest.id_of(name)}, {place}"
    assert refused == f"{words}; remove it there"
    if "/" not in name and " " not in name:
        taken = stage.ask("load_model", url="their/lora", model_id=name)["message"]["model_id"][0]
        assert taken == words


def test_all_names_of_checkpoints_are_listed(stage: Stage) -> None:
    models = stage.ask("get_all_models")["models"]
    names = [model["model_id"] for model in models]
    assert names[:4] == ["drawings", "photographs", "studio/photographs", "photo-1.5"]
    assert set(names[4:]) <= stage.services.manifest.pipelines.keys()
    assert all(set(model) == {"load_data", "model_id"} for model in models)


def test_an_unknown_name_is_refused_as_it_was_said(stage: Stage) -> None:
    assert stage.ask("text2img", model_id="studio/nothing", **SMALL)["message"] == "Model id not found"
    answer = stage.ask("text2img", model_id="photo-1.5", lora_model="studio/nothing", **SMALL)
    assert answer["message"] == {"lora_model": ["lora_model studio/nothing is not on this server"]}
