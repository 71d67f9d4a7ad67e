"""Looking after a running server: uploads, the caller's own queue, caches, restarts of the engines."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.running_server import HTTP, RunningServer, eventually, start_server

MODEL = "stable-diffusion-v1-5"
SMALL = {"model_id": MODEL, "prompt": "a cat", "width": 256, "height": 256, "num_inference_steps": 2}


def pixels(url: str) -> bytes:
    return Image.open(io.BytesIO(HTTP.get(url).content)).tobytes()


def photograph(format_: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, format_)
    return file.getvalue()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Any:
    """A server whose engine draws one small picture at a time and may be restarted."""
    running = start_server(
        tmp_path_factory.mktemp("upkeep"),
        demo_manifest_path,
        group_megapixels="0.0625",
        preload="false",
        fetch_allowed_hosts="[]",
    )
    yield running
    running.stop()


@pytest.mark.parametrize("before", ["", pytest.param("data:image/jpeg;base64,", marks=pytest.mark.slow)])
def test_an_uploaded_picture_opens_with_a_plain_get_as_it_was(own: RunningServer, before: str) -> None:
    file = photograph("JPEG")
    answer = own.answer("upload_image", base64_image=before + base64.b64encode(file).decode())
    assert (answer["status"], answer["message"], answer["messege"]) == ("success", *["image uploaded"] * 2)
    stored = HTTP.get(answer["image_url"])
    assert (stored.content, stored.headers["content-type"]) == (file, "image/jpeg")


def test_an_uploaded_picture_is_stored_in_the_format_asked_for(own: RunningServer) -> None:
    encoded = base64.b64encode(photograph("BMP")).decode()
    answer = own.answer("upload_image", base64_image=encoded, image_type="JPG")
    stored = HTTP.get(answer["image_url"])
    assert stored.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(stored.content)).size == (256, 256)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, {"base64_image": ["The base64_image field is required."]}),
        (
            {"base64_image": "bm90IGEgcGljdHVyZQ=="},
            {"base64_image": ["base64_image must be a PNG, JPEG, WebP, GIF, BMP or TIFF picture in base64"]},
        ),
        ({"base64_image": "http://127.0.0.1/x.png"}, {"base64_image": ["base64_image must be base64 text"]}),
        (
            {"base64_image": "aaaa", "image_type": "svg"},
            {"image_type": ["image_type must be one of png, jpg, jpeg, webp"]},
        ),
    ],
)
def test_what_is_no_picture_is_not_stored(
    own: RunningServer, fields: dict[str, Any], message: dict[str, Any]
) -> None:
    answer = own.answer("upload_image", **fields)
    assert (answer["status"], answer["message"]) == ("error", message)


def test_an_uploaded_picture_serves_as_input_although_private_addresses_are_not_fetched(
    own: RunningServer,
) -> None:
    encoded = base64.b64encode(photograph("PNG")).decode()
    url = own.answer("upload_image", base64_image=encoded)["image_url"]
    fields = {"prompt": "a cat", "num_inference_steps": 20, "img_width": 512}
    with own.client() as client:
        drawn = client.post("/v1/sd1.5-img2img", json={"image": url, **fields})
        foreign = client.post("/v1/sd1.5-img2img", json={"image": "http://127.0.0.1:1/x.png", **fields})
    assert drawn.status_code == 200, drawn.text
    assert "not a public one" in foreign.text


def test_a_cleared_queue_refunds_what_waits_and_leaves_what_is_drawn_and_what_is_others(
    own: RunningServer,
) -> None:
    key, other = own.account("clearing", 1), own.account("patient", 1)
    long = {**SMALL, "num_inference_steps": 50}
    with ThreadPoolExecutor(8) as callers:
        mine = [callers.submit(own.answer, "text2img", key=key, **long) for _ in range(6)]
        eventually(lambda: own.answer("system_details")["queue_num"] >= 4 or None)
        theirs = callers.submit(own.answer, "text2img", key=other, **SMALL)
        eventually(lambda: own.answer("system_details")["queue_num"] >= 5 or None)
        cleared = own.answer("clear_queue", key=key)
        assert cleared["message"] == cleared["messege"] == "Queue cleared, server is restarting"
        answers = [call.result() for call in mine]
        assert theirs.result()["status"] == "success"
    drawn = [answer for answer in answers if answer["status"] == "success"]
    assert cleared["cleared"] == 6 - len(drawn) >= 1
    assert {a["message"] for a in answers if a["status"] == "error"} == {"Request cancelled"}
    with own.client(key) as client:
        left = client.get("/v1/get-user-credits").json()["credits"]
    assert left == pytest.approx(1 - 0.025 * len(drawn))


@pytest.mark.slow
def test_a_restart_and_a_cleared_cache_lose_no_request_and_change_no_picture(own: RunningServer) -> None:
    fields = {**SMALL, "seed": 3, "lora_model": "more_details", "num_inference_steps": 4}
    before = own.answer("text2img", **fields)
    with ThreadPoolExecutor(4) as callers:
        drawing = [callers.submit(own.answer, "text2img", **fields) for _ in range(4)]
        restarting = own.answer("restart_server", key=own.admin_key)
        cleared = own.answer("clear_cache", key=own.admin_key)
        answers = [call.result() for call in drawing]
    assert restarting["message"] == restarting["messege"] == "server restarting"
    assert cleared["message"] == cleared["messege"] == "Cache cleared successfully"
    eventually(lambda: own.answer("system_details")["status"] == "ok" or None)
    answers.append(own.answer("text2img", **fields))
    own.answer("clear_cache", key=own.admin_key)
    answers.append(own.answer("text2img", **fields))
    assert {pixels(answer["output"][0]) for answer in answers} == {pixels(before["output"][0])}


def test_update_server_says_how_it_is_done(own: RunningServer) -> None:
    for operation in ("update_server", "update"):
        answer = own.answer(operation, key=own.admin_key)
        assert (answer["status"], answer["message"]) == ("success", "server updating")
        assert "docker compose" in answer["tip"]


@pytest.mark.parametrize("operation", ["clear_cache", "restart_server", "update_server", "update"])
def test_who_is_no_administrator_cannot_change_the_server_for_others(
    own: RunningServer, operation: str
) -> None:
    answer = own.answer(operation)
    assert answer["status"] == "error"
    expected = f"{operation} changes this server for everyone and needs an administrator's key"
    assert answer["message"] == answer["messege"] == expected
