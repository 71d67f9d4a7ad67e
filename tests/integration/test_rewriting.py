"""multi_lingual and enhance_prompt over real HTTP: `meta` shows the words that were drawn."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.running_server import HTTP, RunningServer, start_server

SMALL = {
    "model_id": "stable-diffusion-v1-5",
    "width": 256,
    "height": 256,
    "num_inference_steps": 1,
    "enhance_prompt": "no",
}
GERMAN = "((ein roter Fuchs im Schnee))"


def text2img(server: RunningServer, key: str | None = None, **fields: Any) -> dict[str, Any]:
    body = {"key": key or server.key, **SMALL, **fields}
    return HTTP.post(f"{server.url}/api/v1/enterprise/text2img", json=body, timeout=120).json()


def balance(server: RunningServer, key: str) -> float:
    return HTTP.get(f"{server.url}/v1/get-user-credits", headers={"x-api-key": key}).json()["credits"]


def test_a_prompt_of_another_language_is_drawn_in_english(server: RunningServer):
    meta = text2img(server, prompt=GERMAN, negative_prompt="verschwommen und dunkel", multi_lingual="yes")[
        "meta"
    ]
    assert meta["multi_lingual"] == "yes"
    assert meta["prompt"].startswith("((")
    assert meta["prompt"].endswith("))")
    assert "Fuchs" not in meta["prompt"]
    assert "verschwommen" not in meta["negative_prompt"]


def test_quality_phrases_come_after_the_translation(server: RunningServer):
    meta = text2img(server, prompt=GERMAN, multi_lingual="yes", enhance_prompt="yes")["meta"]
    assert "Fuchs" not in meta["prompt"]
    assert meta["prompt"].endswith("DSLR photography, sharp focus, Unreal Engine 5, Octane Render, Redshift, "
                                   "((cinematic lighting)), f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, "
                                   "symmetrical balance, in-frame")  # fmt: skip


def test_english_and_what_was_not_asked_for_stay_as_they_are(server: RunningServer):
    assert text2img(server, prompt="a red fox in the snow", multi_lingual="yes")["meta"]["prompt"] == (
        "a red fox in the snow"
    )
    assert text2img(server, prompt=GERMAN)["meta"]["prompt"] == GERMAN


def test_who_cannot_pay_is_not_translated_for(server: RunningServer):
    poor = server.account("cannot pay for words", 0.001)
    answer = text2img(server, poor, prompt=GERMAN, multi_lingual="yes", num_inference_steps=50)
    assert answer["message"].startswith("Insufficient credits")


def test_too_long_a_prompt_is_refused_and_costs_nothing(server: RunningServer):
    key = server.account("talks too much", 5)
    answer = text2img(server, key, prompt="schnee " * 400, multi_lingual="yes")
    assert answer["message"] == {
        "prompt": ["prompt is too long to be translated; at most 2000 characters are allowed"]
    }
    assert balance(server, key) == 5


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """A server with a prompt writer, and without a translator."""
    folders = demo_manifest_path.parent
    manifest = {
        "pipelines": {
            "stable-diffusion-v1-5": {
                "family": "sd15",
                "parts": {"pipeline": {"folder": str(folders / "sd15")}},
                "dtype": "float32",
            },
            "magic-prompt": {
                "family": "prompt_writer",
                "parts": {"model": {"folder": str(folders / "prompt_writer")}},
                "dtype": "float32",
            },
        }
    }
    folder = tmp_path_factory.mktemp("writing")
    path = folder / "weights.yaml"
    path.write_text(yaml.safe_dump(manifest))
    running = start_server(folder, path, prices_millicredits='{"text2img": 1000}')
    yield running
    running.stop()


def test_a_prompt_writer_continues_the_prompt_before_the_phrases(writing: RunningServer):
    meta = text2img(writing, prompt="a red circle", enhance_prompt="yes")["meta"]
    written, _, phrases = meta["prompt"].partition(", DSLR photography")
    assert written.startswith("a red circle ")
    assert len(written) > len("a red circle ")
    assert phrases.endswith("in-frame")
    assert text2img(writing, prompt="a red circle")["meta"]["prompt"] == "a red circle"


def test_without_a_translator_nobody_is_left_guessing(writing: RunningServer):
    answer = text2img(writing, prompt=GERMAN, multi_lingual="yes")
    assert answer["message"] == {
        "multi_lingual": ["multi_lingual cannot be yes: weights.yaml of this server names no translator"]
    }


def test_who_can_pay_for_the_operation_is_written_for(writing: RunningServer):
    red = BytesIO()
    Image.new("RGB", (256, 256), "red").save(red, "PNG")
    body = {
        **SMALL,
        "key": writing.account("can pay for img2img alone", 0.02),
        "prompt": "a red circle",
        "init_image": base64.b64encode(red.getvalue()).decode(),
        "strength": 1,
        "enhance_prompt": "yes",
    }
    paths = {
        operation: f"{writing.url}/api/v1/enterprise/{operation}" for operation in ("text2img", "img2img")
    }
    assert HTTP.post(paths["text2img"], json=body).json()["message"].startswith("Insufficient credits")
    answer = HTTP.post(paths["img2img"], json=body, timeout=120).json()
    assert (answer["status"], answer["meta"]["prompt"][:13]) == ("success", "a red circle ")


def test_language_models_are_no_checkpoints_to_draw_with(writing: RunningServer):
    body = {"key": writing.key}
    models = HTTP.post(f"{writing.url}/api/v1/enterprise/get_all_models", json=body).json()["models"]
    assert [model["model_id"] for model in models] == ["stable-diffusion-v1-5"]
    answer = text2img(writing, model_id="magic-prompt", prompt="a cat")
    assert answer["message"] == "Model id not found"
