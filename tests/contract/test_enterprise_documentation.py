"""What /docs shows of the enterprise dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.app import create_app
from server.endpoints.enterprise.wire import PREFIX
from server.settings import Settings
from tests.documented_bodies import TEXT2IMG


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Operation -> what is documented of it."""
    folder: Path = tmp_path_factory.mktemp("never started")
    paths = create_app(Settings(data=folder)).openapi()["paths"]
    shown = {path: operation["post"] for path, operation in paths.items() if path.startswith(PREFIX)}
    return {path.removeprefix(f"{PREFIX}/"): operation for path, operation in shown.items()}


def test_every_operation_shows_a_body_an_answer_and_an_error(operations: dict[str, dict[str, Any]]) -> None:
    assert {"text2img", "fetch", "fetch/{id}", "system_details"} <= operations.keys()
    for operation in operations.values():
        assert operation["requestBody"]["required"]
        assert operation["requestBody"]["content"]["application/json"]["example"]["key"]
        answers = operation["responses"]
        assert set(answers) == {"200", "4XX", "5XX"}
        examples = answers["200"]["content"]["application/json"]["examples"]
        assert examples["success"]["value"]
        assert examples["error"]["value"]["status"] == "error"


def test_the_example_of_text2img_says_what_the_pages_own_sample_says(
    operations: dict[str, dict[str, Any]],
) -> None:
    example = operations["text2img"]["requestBody"]["content"]["application/json"]["example"]
    own_words = {"prompt", "negative_prompt"}
    assert example.keys() == {name for name, value in TEXT2IMG.items() if value not in (None, "no")} | {
        "safety_checker"
    }
    assert {name for name, value in example.items() if value != TEXT2IMG[name]} == own_words


def test_limits_are_shown_in_words_of_json_schema(operations: dict[str, dict[str, Any]]) -> None:
    fields = operations["text2img"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    limits = {"type": "integer", "minimum": 256, "maximum": 1024, "multipleOf": 8}
    assert fields["height"].items() >= limits.items()
    assert fields["width"].items() >= {**limits, "maximum": 2048}.items()
    assert "with `panorama` at most 2048" in fields["width"]["description"]
    assert not any({"ge", "le", "multiple_of"} & field.keys() for field in fields.values())


@pytest.mark.parametrize(
    ("operation", "names"),
    [("text2img", [("Idempotency-Key", "header")]), ("fetch", []), ("fetch/{id}", [("id", "path")])],
)
def test_parameters_beside_the_body_are_shown(
    operations: dict[str, dict[str, Any]], operation: str, names: list[tuple[str, str]]
) -> None:
    shown = operations[operation].get("parameters", [])
    assert [(parameter["name"], parameter["in"]) for parameter in shown] == names
