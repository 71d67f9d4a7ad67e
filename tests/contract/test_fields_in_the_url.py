"""Fields behind the question mark of an enterprise call: two published clients send nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from server.commands.serve import without_query
from tests.contract.parameters.stage import ENTERPRISE, Stage, opened

SENT = {"model_id": "drawings", "prompt": "a cat & a dog", "width": "256", "height": "256", "samples": "1"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize("path", [f"{ENTERPRISE}/text2img", "/api/v3/text2img", "/api/v3/dreambooth"])
def test_a_call_without_a_body_draws_what_its_url_says(stage: Stage, path: str):
    query = urlencode({**SENT, "enhance_prompt": "no"})
    answer = stage.client.post(f"{path}?{query}", headers={"key": stage.key}).json()
    assert answer["status"] == "success", answer
    asked = stage.engine.requests[-1]
    assert (asked.prompt, asked.width, asked.height) == ("a cat & a dog", 256, 256)


def test_the_body_is_right_where_the_url_says_otherwise(stage: Stage):
    query = urlencode({**SENT, "enhance_prompt": "no"})
    body = {"key": stage.key, "prompt": "a fox"}
    answer = stage.client.post(f"{ENTERPRISE}/text2img?{query}", json=body).json()
    assert (answer["status"], stage.engine.requests[-1].prompt) == ("success", "a fox")
    assert stage.engine.requests[-1].width == 256


def test_the_key_may_be_in_the_url(stage: Stage):
    path = f"{ENTERPRISE}/system_details"
    assert stage.client.post(f"{path}?key={stage.key}").json()["status"] == "ok"
    assert stage.client.post(f"{path}?key=wrong").json()["message"] == "Invalid Api Key"
    assert stage.client.post(path).json()["message"] == {"key": ["The key field is required."]}


def test_a_wrong_value_in_the_url_is_told_like_one_in_the_body(stage: Stage):
    query = urlencode({**SENT, "width": "64"})
    answer = stage.client.post(f"{ENTERPRISE}/text2img?{query}", headers={"key": stage.key}).json()
    assert answer["message"] == {"width": ["width must be between 256 and 1024"]}


def test_characters_of_the_url_are_read_as_utf_8_or_refused(stage: Stage):
    sent = {**SENT, "enhance_prompt": "no", "prompt": "un cercle très bleu"}
    path = f"{ENTERPRISE}/text2img?{urlencode(sent)}"
    assert stage.client.post(path, headers={"key": stage.key}).json()["status"] == "success"
    assert stage.engine.requests[-1].prompt == "un cercle très bleu"
    refused = stage.client.post(path.replace("%C3%A8", "%E8"), headers={"key": stage.key}).json()
    assert refused["status"] == "error"
    assert "UTF-8" in str(refused["message"])


def test_segmind_reads_no_fields_from_the_url(stage: Stage):
    """No client of it does, and its own pages say nothing of them."""
    answer = stage.client.post("/v1/kolors?prompt=a%20cat", headers={"x-api-key": stage.key})
    assert (answer.status_code, answer.json()) == (406, {"error": "Invalid content type"})


def test_the_access_log_has_no_keys_in_it():
    line = ("127.0.0.1:1", "POST", f"{ENTERPRISE}/text2img?key=SG_1&prompt=a", "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', line, None)
    assert without_query(record)
    assert record.getMessage() == f'127.0.0.1:1 - "POST {ENTERPRISE}/text2img HTTP/1.1" 200'
