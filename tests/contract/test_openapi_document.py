"""The OpenAPI document as programs that write clients read it, held against what is really answered."""

from __future__ import annotations

import asyncio
import json
import keyword
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest

from server.endpoints.openapi import operation_id
from tests.contract.parameters.rows import Page
from tests.contract.parameters.stage import ENTERPRISE, Answer, Stage, opened
from tests.contract.parameters.tables import ENTERPRISE_PAGES, SEGMIND_PAGES

UNKNOWN_ID = "6ad2c1a8-94c2-4a51-9a3e-3a5c74a1b0d2"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("openapi")) as stage:
        yield stage


@pytest.fixture(scope="module")
def document(stage: Stage) -> dict[str, Any]:
    return stage.client.get("/openapi.json").json()


def operations(document: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, verb and description of every operation."""
    return [
        (path, verb, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]


def conforms(document: Mapping[str, Any], path: str, verb: str, answer: Answer) -> None:
    """See that an answer in JSON is one that the document describes."""
    answers = document["paths"][path][verb]["responses"]
    status = str(answer.status_code)
    described = answers.get(status) or answers[f"{status[0]}XX"]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())


def test_every_operation_has_a_name_that_programs_can_give_a_function(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len({*names}) == len(names)
    for name in names:
        assert name.isidentifier()
        assert name.isascii()
        assert not keyword.iskeyword(name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/kolors", "kolors"),
        ("/v2/kolors", "v2_kolors"),
        ("/v1/sd1.5-img2img", "sd1_5_img2img"),
        ("/v2/requests/{request_id}/status", "v2_requests_by_id_status"),
        (f"{ENTERPRISE}/text2img", "text2img"),
        (f"{ENTERPRISE}/fetch/{{id}}", "fetch_by_id"),
        ("/api/v6/images/text2img", "v6_images_text2img"),
        ("/api/v3/dreambooth/fetch/{id}", "v3_dreambooth_fetch_by_id"),
        ("/generations/{name}", "generations_by_name"),
        ("/v1/class", "class_"),
        ("/3d", "op_3d"),
    ],
)
def test_a_name_follows_from_the_path(path: str, name: str) -> None:
    assert operation_id(path) == name


def test_every_answer_in_json_has_a_schema(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                assert content.get("schema") or not media_type.endswith("json"), (path, verb, status)
    assert any(name.startswith("Enterprise") for name in document["components"]["schemas"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                if name == "$ref":
                    yield item
                else:
                    yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    found = {*references(document)}
    assert len(found) > 20
    for reference in found:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][kind]


def test_every_operation_has_a_summary_and_a_tag_that_is_described(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    for path, verb, operation in operations(document):
        assert operation["summary"], (path, verb)
        assert len(operation["tags"]) == 1
        assert {*operation["tags"]} <= described


def test_every_answer_declares_its_headers(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        for status, answer in operation["responses"].items():
            headers = answer["headers"].keys()
            assert "x-request-id" in headers
            if "segmind" in operation["tags"] and status in ("200", "404", "429"):
                assert "x-remaining-credits" in headers, (path, verb, status)
            if status in ("429", "503"):
                assert "Retry-After" in headers
    drawn = document["paths"]["/v1/kolors"]["post"]["responses"]["200"]["headers"]
    assert {"x-cost", "x-seed-value", "x-remaining-credits", "x-request-id", "x-warnings"} <= drawn.keys()
    refused = document["paths"][f"{ENTERPRISE}/text2img"]["post"]["responses"]["200"]["headers"]
    assert {"x-remaining-credits", "Retry-After"} <= refused.keys()


def test_the_headers_that_are_declared_are_sent(stage: Stage, document: dict[str, Any]) -> None:
    body = {"prompt": "a cat", "width": 512, "height": 512, "number_of_images": 2}
    answer = stage.send("POST", "/v1/kolors", body)
    declared = document["paths"]["/v1/kolors"]["post"]["responses"]["200"]["headers"].keys()
    assert {*declared} - {"x-warnings"} <= answer.headers.keys()


def test_every_way_of_a_key_is_declared(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["BearerAuth"] == schemes["BearerAuth"] | {"type": "http", "scheme": "bearer"}
    headers = {scheme["name"] for scheme in schemes.values() if scheme["type"] == "apiKey"}
    assert headers == {"x-api-key", "key"}
    for path, _, operation in operations(document):
        ways = [name for way in operation.get("security", ()) for name in way]
        if {*operation["tags"]} & {"segmind", "enterprise"}:
            assert {*ways} == schemes.keys(), path
        if path.startswith("/api/"):
            assert {} in operation["security"]  # the key is in the body
            assert "key" in operation["requestBody"]["content"]["application/json"]["schema"]["properties"]


def test_the_document_says_where_the_server_is(document: dict[str, Any]) -> None:
    assert [server["url"] for server in document["servers"]] == ["/", "http://127.0.0.1:8000"]


def test_the_forms_of_enterprise_are_shown_where_something_is_drawn(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        named = {parameter["name"] for parameter in operation.get("parameters", ())}
        if path.startswith("/api/") and "Idempotency-Key" in named:
            content = operation["requestBody"]["content"]
            assert {
                "application/json",
                "multipart/form-data",
                "application/x-www-form-urlencoded",
            } <= content.keys()
    form = document["paths"][f"{ENTERPRISE}/img2img"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["init_image"]["format"] == "binary"


def sent(stage: Stage, page: Page) -> Answer:
    body = {name: value(stage) if callable(value) else value for name, value in page.body.items()}
    return stage.send(page.method, page.path, body)


PAGES = [page for page in (*SEGMIND_PAGES, *ENTERPRISE_PAGES) if not page.path.startswith("/generations/")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_good_answer_is_one_that_is_described(stage: Stage, document: dict[str, Any], page: Page) -> None:
    answer = sent(stage, page)
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("application/json"):
        page_answers = document["paths"][page.path][page.method.lower()]["responses"]["200"]["content"]
        assert answer.headers["content-type"] in page_answers
        return
    conforms(document, page.path, page.method.lower(), answer)
    if page.path.startswith("/api/"):
        assert not answer.text.startswith('{"status":"error"'), answer.text
        # Told apart from an error by its schema alone, too.
        error = {"$ref": "#/components/schemas/EnterpriseError", "components": document["components"]}
        assert not jsonschema.Draft202012Validator(error).is_valid(answer.json())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.method == "POST"], ids=lambda page: page.path
)
def test_a_refusal_is_one_that_is_described(stage: Stage, document: dict[str, Any], page: Page) -> None:
    for body in ({}, {"prompt": [], "url": 7, "image": 7}, {"key": "wrong"}):
        answer = stage.client.post(page.path.replace("{id}", "0"), json=body)
        conforms(document, page.path, "post", answer)


def test_base64_answers_are_described(stage: Stage, document: dict[str, Any]) -> None:
    path = "/v1/kandinsky2.2-txt2img"
    for samples in (1, 2):
        body = {"prompt": "a cat", "img_width": 512, "img_height": 512, "base64": True, "samples": samples}
        conforms(document, path, "post", stage.send("POST", path, body))


def test_what_is_known_of_a_request_is_described(
    stage: Stage, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    conforms(document, "/v2/requests/{request_id}", "get", stage.client.get(f"/v2/requests/{UNKNOWN_ID}"))
    monkeypatch.setattr(stage.services.dispatch, "readiness", lambda: "the device is lost")
    conforms(document, "/readyz", "get", stage.client.get("/readyz"))


def test_a_picture_that_takes_longer_is_described(
    stage: Stage, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    draw = stage.engine.draw

    async def later(*arguments: Any) -> Any:
        await gate.wait()
        return await draw(*arguments)

    monkeypatch.setattr(stage.engine, "draw", later)
    before = stage.services.settings.sync_wait_s
    object.__setattr__(stage.services.settings, "sync_wait_s", 0.01)
    try:
        path = f"{ENTERPRISE}/text2img"
        body = {"model_id": "drawings", "prompt": "a cat", "width": 256, "height": 256, "track_id": "mine"}
        answer = stage.send("POST", path, body)
        assert answer.json()["status"] == "processing"
        conforms(document, path, "post", answer)
        fetched = stage.send("POST", f"{ENTERPRISE}/fetch", {"request_id": answer.json()["id"]})
        assert fetched.json()["status"] == "processing"
        conforms(document, f"{ENTERPRISE}/fetch", "post", fetched)
        queued = stage.send("POST", "/v2/kolors", {"prompt": "a cat", "width": 512, "height": 512}).json()
        result = stage.client.get(f"/v2/requests/{queued['request_id']}", headers={"x-api-key": stage.key})
        assert json.loads(result.text)["status"] in ("QUEUED", "PROCESSING")
        conforms(document, "/v2/requests/{request_id}", "get", result)
    finally:
        object.__setattr__(stage.services.settings, "sync_wait_s", before)
        stage.run(_open, gate)


async def _open(gate: Any) -> None:
    gate.set()
