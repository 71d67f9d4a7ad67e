"""JavaScript clients against a running server, in Node: those of the documentation, and published ones."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.clients.conftest import Node
from tests.running_server import HTTP, RunningServer, eventually


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded, validate=True)))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    given = tmp_path / "input.jpeg"
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(given)
    return given


@pytest.mark.client("axios, as documented", "JavaScript", error="no picture")
def test_the_documented_axios_sample_is_told_that_it_sends_no_picture(
    server: RunningServer, javascript: Node
):
    said = javascript.run("segmind_axios.cjs", server.url, server.key)
    assert said == {"status": 400, "body": {"error": "Invalid input image"}}


@pytest.mark.client("axios, as documented", "JavaScript", happy="sd1.5-img2img")
def test_the_axios_sample_draws_with_a_picture(server: RunningServer, javascript: Node, photograph: Path):
    said = javascript.run("segmind_axios.cjs", server.url, server.key, str(photograph))
    assert said["is_jpeg"] is True
    assert said["remaining"] > 0
    picture = opened(said["picture"])
    assert (picture.format, picture.size) == ("JPEG", (512, 512))


@pytest.mark.slow
@pytest.mark.client("fetch, as documented", "JavaScript", happy="kandinsky2.2-txt2img")
def test_a_caller_with_fetch_reads_base64_whatever_else_it_sends(server: RunningServer, javascript: Node):
    said = javascript.run("segmind_fetch.mjs", server.url, server.key)
    assert (said["status"], said["body"]["status"]) == (200, "Success")
    first, second = (opened(image) for image in said["body"]["image"])
    assert (first.format, first.size) == ("PNG", (512, 512))
    assert first.tobytes() != second.tobytes()
    assert said["body"]["outputs"] == 2
    assert said["body"]["image_format"] == "png"


@pytest.mark.client("fetch, as documented", "JavaScript", happy="text2img")
def test_the_documented_fetch_of_text2img_draws_and_its_urls_open(server: RunningServer, javascript: Node):
    said = javascript.run("enterprise_fetch.mjs", server.url, server.key)
    assert said["answer"]["status"] == "success"
    assert [opened(picture).size for picture in said["pictures"]] == [(256, 256), (256, 256)]


@pytest.mark.client("fetch, as documented", "JavaScript", error="bad key")
def test_the_documented_fetch_of_text2img_reads_that_its_key_is_wrong(
    server: RunningServer, javascript: Node
):
    said = javascript.run("enterprise_fetch.mjs", server.url, "wrong")
    assert (said["answer"]["status"], said["answer"]["message"]) == ("error", "Invalid Api Key")


def test_node_reaches_nobody_but_this_machine(javascript: Node):
    with pytest.raises(AssertionError, match="is not on this machine"):
        javascript.run("enterprise_fetch.mjs", "http://192.0.2.1", "key")


# @portkey-ai/gateway: an OpenAI-like server in front of ours


@pytest.fixture(scope="module")
def gateway(javascript: Node) -> Iterator[httpx.Client]:
    """The gateway, which has a provider for Segmind, and callers of the gateway."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = javascript.packages / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    process = javascript.start(program, f"--port={port}", "--headless")
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)

    def up() -> bool:
        assert process.poll() is None, "the gateway has exited"
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(up)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def generated(gateway: httpx.Client, key: str, **body: Any) -> httpx.Response:
    headers = {"x-portkey-provider": "segmind", "Authorization": f"Bearer {key}"}
    given = {"prompt": "a cat", "size": "512x512", "steps": 20, **body}
    return gateway.post("/v1/images/generations", json=given, headers=headers)


@pytest.mark.slow
@pytest.mark.client("@portkey-ai/gateway", "JavaScript", happy="kandinsky2.2-txt2img, kolors")
@pytest.mark.parametrize("model", ["kolors", "kandinsky2.2-txt2img"])
def test_a_gateway_reads_pictures_in_base64(server: RunningServer, gateway: httpx.Client, model: str):
    answer = generated(gateway, server.key, model=model)
    assert answer.status_code == 200, answer.text
    [picture] = answer.json()["data"]
    assert opened(picture["b64_json"]).format == "PNG"


@pytest.mark.slow
@pytest.mark.client("@portkey-ai/gateway", "JavaScript", happy="sd1.5-txt2img, sdxl1.0-txt2img")
@pytest.mark.parametrize("model", ["sd1.5-txt2img", "sdxl1.0-txt2img"])
def test_a_gateway_reads_pictures_of_further_models(server: RunningServer, gateway: httpx.Client, model: str):
    answer = generated(gateway, server.key, model=model)
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["data"][0]["b64_json"]).format == "PNG"


@pytest.mark.client(
    "@portkey-ai/gateway", "JavaScript", error="bad key, unknown model, wrong value, no credits"
)
def test_a_gateway_hands_on_what_is_wrong(server: RunningServer, gateway: httpx.Client):
    def said(key: str = server.key, **body: Any) -> tuple[int, str]:
        answer = generated(gateway, key, **{"model": "kandinsky2.2-txt2img", **body})
        return answer.status_code, answer.json()["error"]["message"]

    assert said("wrong") == (401, "segmind error: Unauthorized. API key is invalid or may have expired")
    status, text = said(model="nothing")
    assert status == 404
    assert text.startswith("segmind error: ")
    status, text = said(size="500x512")
    assert status == 406
    assert "img_width" in text
    status, text = said(server.account("poor gateway", 0))
    assert status == 406
    assert "Insufficient credits" in text


# The SDKs of both vendors. Not every registry has them: test_request_bytes.py repeats their requests.


def sdk(javascript: Node, package: str, *arguments: str) -> Any:
    if not javascript.has(package):
        pytest.skip(f"the registry has no {package}")
    return javascript.run(f"{package}.cjs", *arguments)


@pytest.mark.client("modelslab", "JavaScript", happy="text2img, img2img, realtime (v1 and v6), fetch")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_sdk_modelslab_draws(server: RunningServer, javascript: Node, enterprise: bool):
    said = sdk(javascript, "modelslab", server.key, json.dumps(enterprise), "stable-diffusion-v1-5")
    assert [answer["status"] for answer in said] == ["success"] * 4, said
    assert said[0]["output"] == said[3]["output"]
    path = said[0]["output"][0].split("/", 3)[3]
    assert Image.open(BytesIO(HTTP.get(f"{server.url}/{path}").content)).size == (256, 256)


@pytest.mark.client("modelslab", "JavaScript", error="bad key, unknown model")
def test_the_sdk_modelslab_hands_on_what_is_wrong(server: RunningServer, javascript: Node):
    assert sdk(javascript, "modelslab", "wrong", "true", "x")[0]["message"] == "Invalid Api Key"
    assert sdk(javascript, "modelslab", server.key, "true", "x")[0]["message"] == "Model id not found"


@pytest.mark.slow
@pytest.mark.client("segmind-npm", "JavaScript", happy="kandinsky2.2-txt2img, sd1.5-img2img")
@pytest.mark.parametrize("model", ["Kandinsky", "Img2Img"])
def test_the_sdk_segmind_npm_draws(server: RunningServer, javascript: Node, model: str, photograph: Path):
    said = sdk(javascript, "segmind-npm", server.key, model, str(photograph))
    assert said["status"] == 200
    assert opened(said["picture"]).format == "PNG"


@pytest.mark.client("segmind-npm", "JavaScript", error="bad key")
def test_the_sdk_segmind_npm_hands_on_what_is_wrong(server: RunningServer, javascript: Node):
    said = sdk(javascript, "segmind-npm", "wrong", "Kandinsky")
    assert said == {"status": 401, "error": "Unauthorized. API key is invalid or may have expired"}
