"""super_resolution, nsfw_image_check and upscale over real HTTP."""

from __future__ import annotations

import base64
import io
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.demo.checkpoints.safety_checker import FLAGGED
from pipelines.demo.world.world import render
from pipelines.image_io import to_pil
from tests.running_server import HTTP, RunningServer


def sent(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(HTTP.get(url).content))


def stripes(width: int, height: int) -> Image.Image:
    rows = np.zeros((height, width, 3), np.uint8)
    rows[:, ::16] = (200, 120, 40)
    return Image.fromarray(rows)


def test_a_picture_is_enlarged_charged_and_fetched_again(server: RunningServer):
    key = server.account("enlarger", 1)
    answer = server.post("super_resolution", url=sent(stripes(80, 60)), scale="4", key=key)
    body = answer.json()
    assert body["status"] == "success", body
    assert isinstance(body["output"], str)
    assert isinstance(body["generationTime"], float)
    assert opened(body["output"]).size == (320, 240)
    assert answer.headers["x-remaining-credits"] == "0.99"
    fetched = server.post(f"fetch/{body['id']}", key=key).json()
    assert (fetched["status"], fetched["output"]) == ("success", [body["output"]])
    # What came out can go in, by its URL.
    again = server.post("super_resolution", url=body["output"], scale=2, key=key).json()
    assert opened(again["output"]).size == (640, 480)


def test_the_enlarged_picture_is_the_same_picture(server: RunningServer):
    rows = np.kron(np.arange(0, 240, 30, dtype=np.uint8).reshape(2, 4), np.ones((20, 20), np.uint8))
    blocks = Image.fromarray(np.repeat(rows[..., None], 3, axis=2))
    body = server.post("super_resolution", url=sent(blocks)).json()
    shrunk = opened(body["output"]).resize(blocks.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - np.asarray(blocks)).mean() < 25


def test_face_enhance_draws_the_face_and_says_when_there_is_none(server: RunningServer):
    portrait = Image.fromarray(skimage.data.astronaut()[:250, 100:350])
    plain = server.post("super_resolution", url=sent(portrait), face_enhance="no").json()
    body = server.post("super_resolution", url=sent(portrait), face_enhance="yes").json()
    assert body["status"] == "success", body
    assert (body["meta"]["face_enhance"], plain["meta"]["face_enhance"]) == ("yes", "no")
    assert "warning" not in body
    drawn, enlarged = opened(body["output"]), opened(plain["output"])
    assert drawn.size == (500, 500)
    changed = (np.asarray(drawn) != np.asarray(enlarged)).any(axis=2)
    assert changed[120:320, 160:340].mean() > 0.9
    assert not changed[:20].any()
    assert not changed[400:].any()
    nobody = server.post("super_resolution", url=sent(stripes(80, 60)), face_enhance=True).json()
    assert (nobody["status"], opened(nobody["output"]).size) == ("success", (160, 120))
    assert nobody["warning"] == "no face was found in the picture, so none was restored"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, {"url": ["The url field is required."]}),
        ({"url": "toB64('x')"}, {"url": ["url is not base64 text"]}),
        ({"url": "http://10.0.0.1/x.png"}, None),
        ({"url": sent(stripes(8, 8)), "model_id": "unheard"}, "Model id not found"),
        ({"url": sent(stripes(3000, 2000)), "scale": 3}, None),
    ],
)
def test_what_cannot_be_enlarged_costs_nothing(server: RunningServer, fields: dict[str, Any], message: Any):
    key = server.account(f"refused {uuid.uuid4()}", 1)
    answer = server.post("super_resolution", **fields, key=key)
    body = answer.json()
    assert body["status"] == "error"
    assert answer.headers["x-remaining-credits"] == "1.0"
    if message is None:
        (field,) = body["message"].keys()
        assert field in fields
    else:
        assert body["message"] == message


@pytest.mark.parametrize(("ground", "flagged"), [(FLAGGED.ground, True), ("blue", False)])
def test_the_checker_says_which_pictures_may_not_be_shown(server: RunningServer, ground: str, flagged: bool):
    picture = to_pil(render(replace(FLAGGED, ground=ground), (90, 70)))
    body = server.post("nsfw_image_check", init_image=sent(picture)).json()
    assert body["status"] == "success", body
    assert body["has_nsfw_concept"] == [flagged]
    assert opened(body["images"]).size == (90, 70)


def test_upscale_returns_twice_the_size_and_keeps_what_was_asked(server: RunningServer):
    fields = {
        "model_id": "stable-diffusion-v1-5",
        "prompt": "a cat",
        "width": 256,
        "height": 264,
        "num_inference_steps": 2,
        "seed": 5,
    }
    plain = server.post("text2img", **fields).json()
    body = server.post("text2img", **fields, upscale="yes").json()
    assert (body["meta"]["upscale"], body["meta"]["W"], body["meta"]["H"]) == ("yes", 256, 264)
    assert body["meta"]["nsfw"] == ["no"]
    larger, drawn = opened(body["output"][0]), opened(plain["output"][0])
    assert (larger.size, drawn.size) == ((512, 528), (256, 264))
    assert larger.info["parameters"].endswith("Upscaler: small-x2")
    shrunk = np.asarray(larger.resize(drawn.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - np.asarray(drawn)).mean() < 25
