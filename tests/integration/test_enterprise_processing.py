"""Answers of a server that waits for no picture: `processing`, then what fetch and the webhook say."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from pipelines.demo.checkpoints.safety_checker import FLAGGED
from pipelines.demo.world.world import render
from pipelines.image_io import encode
from tests.receiver import receiver
from tests.running_server import ENTERPRISE, HTTP, RunningServer, eventually, start_server

SMALL = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 2,
}


def picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(HTTP.get(url).content))


def heart(ground: str) -> str:
    """A picture of 90x70 that the checker knows, on another ground or its own."""
    picture = render(replace(FLAGGED, ground=ground), (90, 70))
    return base64.b64encode(encode(picture, "png")).decode()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Generator[RunningServer]:
    """Answers `processing` at once, errors with standard statuses, and writes nothing into pictures."""
    running = start_server(
        tmp_path_factory.mktemp("impatient"),
        demo_manifest_path,
        sync_wait_s="0",
        enterprise_errors="standard",
        png_metadata="false",
    )
    yield running
    running.stop()


def test_a_long_call_is_answered_processing_and_fetched_later(impatient: RunningServer):
    key = impatient.account("patient", 1)
    answer = impatient.post("text2img", **{**SMALL, "num_inference_steps": 20}, key=key)
    assert answer.headers["x-remaining-credits"] == "0.99"
    body = answer.json()
    assert body["status"] == "processing"
    assert body["output"] == []
    assert body["message"] == body["messege"] == "Try to fetch request after given estimated time"
    assert isinstance(body["eta"], float)

    def fetched() -> dict[str, Any] | None:
        later = HTTP.post(body["fetch_result"], json={"key": key}).json()
        if later["status"] == "processing":
            assert later["messege"] == "try again later."
            return None
        return later

    later = eventually(fetched)
    assert later["status"] == "success"
    assert later["output"] == body["future_links"]
    assert picture(later["output"][0]).size == (256, 256)
    assert "parameters" not in picture(later["output"][0]).info


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"width": 1}, 400),
        ({"key": "wrong"}, 401),
        ({"model_id": "none"}, 404),
        ({"scheduler": "none"}, 400),
    ],
)
def test_standard_mode_uses_http_statuses(impatient: RunningServer, changes: dict[str, Any], status: int):
    assert impatient.post("text2img", **{**SMALL, **changes}).status_code == status


def fetched_at_last(address: str, key: str) -> dict[str, Any]:
    def fetched() -> dict[str, Any] | None:
        later = HTTP.post(address, json={"key": key}).json()
        return None if later["status"] == "processing" else later

    return eventually(fetched)


@pytest.mark.parametrize(
    ("operation", "fields", "cost", "flagged", "size", "own"),
    [
        ("super_resolution", {"url": heart("blue"), "scale": 2}, 0.01, False, (180, 140), "output"),
        ("nsfw_image_check", {"init_image": heart(FLAGGED.ground)}, 0.001, True, (90, 70), "images"),
        ("nsfw_image_check", {"init_image": heart("blue")}, 0.001, False, (90, 70), "images"),
    ],
)
def test_work_on_a_picture_goes_on_behind_its_answer(
    impatient: RunningServer,
    operation: str,
    fields: dict[str, Any],
    cost: float,
    flagged: bool,
    size: tuple[int, int],
    own: str,
):
    key = impatient.account(f"{operation} {flagged}", 1)
    body = {"key": key, **fields, "track_id": "order 5"}
    url = f"{impatient.url}{ENTERPRISE}/{operation}"
    with receiver() as it, httpx.Client(headers={"Idempotency-Key": "once"}, timeout=120) as client:
        answer = client.post(url, json={**body, "webhook": it.url})
        assert answer.headers["x-remaining-credits"] == str(1 - cost)
        begun = answer.json()
        assert (begun["status"], begun["output"], begun["track_id"]) == ("processing", [], "order 5")
        assert type(begun["id"]) is int
        later = fetched_at_last(begun["fetch_result"], key)
        assert later == {
            "status": "success",
            "id": begun["id"],
            "output": begun["future_links"],
            "nsfw_content_detected": flagged,
            "meta": {**begun["meta"], "nsfw": later["meta"]["nsfw"]},
            "track_id": "order 5",
        }
        assert later["meta"]["nsfw"] == (["yes" if flagged else "no"] if own == "images" else [])
        assert picture(later["output"][0]).size == size
        told = eventually(lambda: it.received)[0].payload
        assert type(told["generationTime"]) is float
        assert told == {**later, "generationTime": told["generationTime"]}
        # a retry finds the work done, and is answered as a call that waited for it
        retried = client.post(url, json={**body, "webhook": it.url})
        assert retried.headers["x-remaining-credits"] == answer.headers["x-remaining-credits"]
        done = retried.json()
        assert (done["status"], done["id"], done[own]) == ("success", begun["id"], later["output"][0])
        if own == "images":
            assert done["has_nsfw_concept"] == [flagged]
