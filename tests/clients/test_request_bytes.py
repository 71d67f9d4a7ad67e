"""Clients whose language or package is not to be had here: what they send, byte for byte, and what they read.

The public source of each was read. Its request is sent as it sends it, with its HTTP library's headers, and
the answer is read as it reads it: into types, where it has them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict

from tests.running_server import HTTP, RunningServer

MODEL = "stable-diffusion-v1-5"
JSON = {"Content-Type": "application/json"}
GO = {**JSON, "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
AXIOS = {
    **JSON,
    "Accept": "application/json, text/plain, */*",
    "Accept-Encoding": "gzip, compress, deflate, br",
}


class Read(BaseModel):
    """A struct of a typed language: a number is no text, and what is not named is left alone."""

    model_config = ConfigDict(strict=True)


class GoMeta(Read):
    prompt: str
    model_id: str
    negative_prompt: str
    scheduler: str
    safetychecker: str
    W: int
    H: int
    guidance_scale: float
    seed: int
    steps: int
    n_samples: int
    upscale: str
    multi_lingual: str
    outdir: str
    file_prefix: str


class GoDrawn(Read):
    status: str
    generationTime: float
    id: int
    output: list[str]
    meta: GoMeta


class GoAnswer(Read):
    """Of the vendor's own Go SDK, whose ``message`` is a text."""

    status: str
    message: str = ""


class AnyJSON(Read):
    model_config = ConfigDict(strict=True, extra="allow")

    status: str


@dataclass(frozen=True)
class Client:
    """What a client does: where it posts, with which headers and fields, into what it reads the answer.

    Attributes:
        key: how the key goes along: "field", a header's name, or "Bearer".
    """

    name: str
    language: str
    path: str
    fields: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    key: str = "field"
    reads: type[BaseModel] = AnyJSON
    encode: Callable[[Any], bytes] = lambda fields: json.dumps(fields).encode()

    def call(self, server: RunningServer, key: str, **changed: object) -> httpx.Response:
        fields = {**self.fields, **changed}
        headers = dict(self.headers)
        match self.key:
            case "field":
                fields = {"key": key, **fields}
            case "Bearer":
                headers["Authorization"] = f"Bearer {key}"
            case _:
                headers[self.key] = key
        return HTTP.post(server.url + self.path, content=self.encode(fields), headers=headers, timeout=120)


DRAWING: dict[str, object] = {"prompt": "a cat", "model_id": MODEL, "width": 256, "height": 256}
FEW = {"num_inference_steps": 2}
GO_TEXTS = {
    "num_inference_steps": "2",
    "safety_checker": "no",
    "enhance_prompt": "no",
    "seed": None,
    "guidance_scale": 7.5,
    "scheduler": "DDIMScheduler",
}
NOTHING: dict[str, object] = {
    "negative_prompt": None,
    "safety_checker": None,
    "seed": None,
    "enhance_prompt": None,
    "guidance_scale": None,
    "multi_lingual": None,
    "panorama": None,
    "self_attention": None,
    "upscale": None,
    "lora_model": None,
    "lora_strength": None,
    "scheduler": None,
    "clip_skip": None,
}
"""What a class with optional fields writes."""

ENTERPRISE = [
    Client(
        "sintanial/stablediffusionapi", "Go", "/api/v4/dreambooth",
        {**DRAWING, "samples": 1, **GO_TEXTS}, GO, reads=GoDrawn,
        encode=lambda fields: json.dumps(fields).encode() + b"\n",
    ),
    Client(
        "modelslab-go", "Go", "/api/v6/images/text2img", {**DRAWING, **FEW}, GO, reads=GoAnswer
    ),
    Client(
        "modelslab-php", "PHP", "/api/v1/enterprise/community/text2img",
        {"prompt": "a cat", "model": MODEL, "webhook": None, "track_id": None},
        {**JSON, "User-Agent": "ModelsLab-PHP-SDK/1.0.0"},
    ),
    Client(
        "modelslab-dart", "Dart", "/api/v6/images/text2img/text2img",
        {**DRAWING, "samples": 1, **NOTHING, **FEW},
        {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Dart/3.5 (dart:io)"},
    ),
    Client(
        "modelslab-ruby", "Ruby", "/api/v1/enterprise/text2img", {**DRAWING, **FEW},
        {**JSON, "User-Agent": "Faraday v2.9.0", "Accept": "*/*"}, key="Bearer",
    ),
    Client(
        "modelslab", "JavaScript", "/api/v1/enterprise/images/text2img", {**DRAWING, **FEW},
        {**AXIOS, "X-Requested-With": "modelslab-js"}, key="Bearer",
    ),
    Client(
        "an app with OkHttp", "Kotlin", "/api/v3/text2img",
        {"prompt": "a cat", "negative_prompt": "", "width": "256", "height": "256", "samples": "1",
         "num_inference_steps": "21", "guidance_scale": "7.5", "seed": "", "webhook": "", "track_id": ""},
        {"Content-Type": "application/json; charset=utf-8", "User-Agent": "okhttp/4.12.0"},
    ),
]  # fmt: skip


def parameters(clients: list[Client], path: str, said: str) -> Any:
    """A parameter for each client, with its row of the table."""
    return [
        pytest.param(
            client,
            id=client.name,
            marks=pytest.mark.client(
                f"{client.name}, its requests", client.language, **{path: said.format(path=client.path)}
            ),
        )
        for client in clients
    ]


@pytest.mark.parametrize("client", parameters(ENTERPRISE, "happy", "`{path}`"))
def test_what_it_sends_is_drawn_and_its_types_read_the_answer(server: RunningServer, client: Client):
    answer = client.call(server, server.key)
    assert answer.status_code == 200
    client.reads.model_validate_json(answer.text)
    said = answer.json()
    assert said["status"] == "success", said
    picture = HTTP.get(said["output"][0])
    assert Image.open(BytesIO(picture.content)).format == "PNG"


@pytest.mark.parametrize("client", parameters(ENTERPRISE, "error", "bad key, wrong value"))
def test_what_is_wrong_arrives_where_it_reads_it(server: RunningServer, client: Client):
    bad_key = client.call(server, "wrong")
    assert bad_key.status_code == 200
    assert bad_key.json()["message"] == "Invalid Api Key"
    # A map in Go, which an error with a text could not be read into.
    assert "messege" not in bad_key.json()
    wrong = client.call(server, server.key, width=64)
    assert wrong.json()["message"] == {"width": ["width must be between 256 and 1024"]}
    assert wrong.json()["messege"] == wrong.json()["message"]


# Segmind

NEGATIVE = "out of frame, duplicate, watermark, signature, text, error, deformed"
SEGMIND = [
    Client(
        "segmind-npm", "JavaScript", "/v1/kandinsky2.2-txt2img",
        {"prompt": "a cat", "negativePrompt": NEGATIVE, "samples": 1, "num_inference_steps": 20,
         "seed": 123456789, "img_width": 512, "img_height": 512, "prior_steps": 2, "base64": False},
        {**AXIOS, "Access-Control-Allow-Origin": "*", "User-Agent": "axios/1.5.0"}, key="x-api-key",
    ),
    Client(
        "an app with URLSession", "Swift", "/v1/sd1.5-img2img",
        {"prompt": "a cat", "image": "", "strength": 0.2, "img_width": "512", "img_height": "512",
         "samples": "1", "seed": "-1", "scheduler": "Euler a", "base64": "true"},
        {**JSON, "Accept": "application/json", "Accept-Language": "en-US;q=1.0",
         "User-Agent": "App/1 CFNetwork/1494.0.7 Darwin/23.4.0"},
        key="x-api-key",
    ),
]  # fmt: skip


def photograph() -> str:
    file = BytesIO()
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("client", parameters(SEGMIND, "happy", "`{path}`"))
def test_what_it_sends_to_segmind_is_drawn(server: RunningServer, client: Client):
    answer = client.call(server, server.key, **({"image": photograph()} if "image" in client.fields else {}))
    assert answer.status_code == 200, answer.text
    if client.fields["base64"]:
        assert Image.open(BytesIO(base64.b64decode(answer.json()["image"]))).format == "PNG"
    else:
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(BytesIO(answer.content)).format == "JPEG"


@pytest.mark.parametrize("client", parameters(SEGMIND, "error", "bad key, wrong value"))
def test_what_is_wrong_arrives_from_segmind(server: RunningServer, client: Client):
    bad_key = client.call(server, "wrong")
    said = {"error": "Unauthorized. API key is invalid or may have expired"}
    assert (bad_key.status_code, bad_key.json()) == (401, said)
    image = {"image": photograph()} if "image" in client.fields else {}
    wrong = client.call(server, server.key, img_width=500, **image)
    assert wrong.status_code == 406
    assert "img_width" in wrong.json()["error"]
