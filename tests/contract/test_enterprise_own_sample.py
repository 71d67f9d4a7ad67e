"""The enterprise page's own sample, sent to the whole server: the answer is the page's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.parameters.stage import ENTERPRISE, Stage, opened
from tests.documented_bodies import TEXT2IMG, TEXT2IMG_ANSWER

OF_THIS_CALL = ("generationTime", "id", "output")
OF_THIS_CALL_IN_META = ("model_id", "vae", "file_prefix", "seed")
"""The ids, times, seeds and names of the answer."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.fixture(scope="module")
def said(stage: Stage) -> dict[str, Any]:
    """The answer to the sample, with a checkpoint of this server."""
    body = {**TEXT2IMG, "model_id": "photographs", "key": stage.key}
    return stage.send("POST", f"{ENTERPRISE}/text2img", body, keyless=True).json()


def test_every_field_is_the_pages_but_ids_times_seeds_and_names(said: dict[str, Any]) -> None:
    page = {name: value for name, value in TEXT2IMG_ANSWER.items() if name not in (*OF_THIS_CALL, "meta")}
    assert page.items() <= said.items()
    meta = {k: v for k, v in TEXT2IMG_ANSWER["meta"].items() if k not in OF_THIS_CALL_IN_META}
    assert meta.items() <= said["meta"].items()
    assert "warning" not in said


def test_the_prompts_are_the_pages_byte_for_byte(said: dict[str, Any]) -> None:
    for name in ("prompt", "negative_prompt"):
        assert said["meta"][name].encode() == TEXT2IMG_ANSWER["meta"][name].encode()


def test_ids_times_seeds_and_names_have_the_pages_types(said: dict[str, Any]) -> None:
    for name in OF_THIS_CALL:
        assert type(said[name]) is type(TEXT2IMG_ANSWER[name])
    for name in OF_THIS_CALL_IN_META:
        assert type(said["meta"][name]) is type(TEXT2IMG_ANSWER["meta"][name])
    assert said["meta"]["model"] == said["meta"]["model_id"] == "photographs"


def test_the_engine_is_asked_with_the_same_prompts(stage: Stage, said: dict[str, Any]) -> None:
    asked: Any = stage.engine.requests[-1]
    meta = TEXT2IMG_ANSWER["meta"]
    assert (asked.prompt, asked.negative_prompt) == (meta["prompt"], meta["negative_prompt"])
