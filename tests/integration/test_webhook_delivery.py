"""Webhooks of a running server: what receivers get, also after the server was killed."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from pipelines import image_io
from pipelines.image_io import RGBImage
from server.database.database import Database, database_url
from server.webhooks.delivery import AT_ONCE_PER_HOST
from server.webhooks.outbox import Webhook, Webhooks, WebhookStatus
from server.webhooks.secret import webhook_secret
from tests.receiver import Receiver, nobody_listens, receiver
from tests.running_server import HTTP, RunningServer, eventually

PATH = "/api/v1/enterprise/text2img"
QUICK = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 1,
    "enhance_prompt": "no",
}
PICTURE = base64.b64encode(image_io.encode(RGBImage(64, 64, bytes(range(256)) * 48), "png")).decode()

LARGE = base64.b64encode(image_io.encode(RGBImage(1400, 1400, bytes(1400 * 1400 * 3)), "png")).decode()


def draw(server: RunningServer, key: str | None = None, **fields: Any) -> dict[str, Any]:
    body = {"key": key or server.key, **QUICK, **fields}
    return HTTP.post(f"{server.url}{PATH}", json=body, timeout=120).json()


def outbox(server: RunningServer) -> list[Webhook]:
    async def look() -> list[Webhook]:
        database = Database(database_url(server.settings))
        try:
            return await Webhooks(database).all()
        finally:
            await database.close()

    return asyncio.run(look())


def addressed_to(server: RunningServer, receiver: Receiver | str) -> list[Webhook]:
    url = receiver if isinstance(receiver, str) else receiver.url
    return [webhook for webhook in outbox(server) if webhook.url.startswith(url)]


def metric(server: RunningServer, name: str) -> float:
    lines = HTTP.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_picture_is_announced_with_what_the_call_was_answered_and_a_signature(server: RunningServer):
    with receiver() as it:
        answer = draw(server, webhook=f"{it.url}/done?job=1", track_id="order-17", samples=2)
        assert (answer["status"], answer["track_id"]) == ("success", "order-17")
        received = eventually(lambda: it.received)[0]
        assert received.path == "/done?job=1"
        assert received.headers["content-type"] == "application/json"
        assert received.payload == answer
        assert [HTTP.get(url).status_code for url in received.payload["output"]] == [200, 200]
        verifier = Verifier(webhook_secret(server.settings))
        assert verifier.verify(received.body, received.headers) == answer
        with pytest.raises(WebhookVerificationError):
            verifier.verify(received.body.replace(b"success", b"succeed"), received.headers)
        eventually(lambda: [w.status for w in addressed_to(server, it)] == [WebhookStatus.delivered])
    assert metric(server, 'understudy_webhook_attempts_total{outcome="delivered"}') >= 1


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("super_resolution", {"url": PICTURE, "scale": 2}),
        ("nsfw_image_check", {"init_image": PICTURE}),
    ],
)
def test_work_on_a_picture_is_announced_too(server: RunningServer, operation: str, fields: dict[str, Any]):
    with receiver() as it:
        body = {"key": server.key, **fields, "webhook": it.url, "track_id": operation}
        answer = HTTP.post(f"{server.url}/api/v1/enterprise/{operation}", json=body, timeout=120).json()
        assert answer["status"] == "success", answer
        told = eventually(lambda: it.received)[0].payload
        assert (told["status"], told["track_id"]) == ("success", operation)


@pytest.mark.parametrize(
    ("track_id", "echoed"), [("17", "17"), (17, 17), (-2.5, -2.5), ("Ж" * 255, "Ж" * 255), (None, None)]
)
def test_a_track_id_comes_back_as_it_was_given(server: RunningServer, track_id: object, echoed: object):
    answer = draw(server, track_id=track_id)
    assert answer.get("track_id") == echoed
    assert type(answer.get("track_id")) is type(echoed)
    path = f"/api/v1/enterprise/fetch/{answer['id']}"
    fetched = HTTP.post(server.url + path, json={"key": server.key}).json()
    assert ("track_id" in fetched, fetched.get("track_id")) == (track_id is not None, echoed)


@pytest.mark.parametrize(
    ("fields", "name", "text"),
    [
        ({"webhook": "ftp://a.example/"}, "webhook", "only http and https URLs are allowed"),
        ({"webhook": "receiver"}, "webhook", "only http and https URLs are allowed"),
        ({"webhook": "http://user:secret@a.example/"}, "webhook", "user name or password"),
        ({"webhook": "http://a.example:0/"}, "webhook", "ports go from 1 to 65535"),
        ({"webhook": "http://[zz]/"}, "webhook", "the URL is malformed"),
        ({"webhook": "http://10.0.0.1/"}, "webhook", "its address is not a public one"),
        ({"webhook": "http://0x7f.2/"}, "webhook", "its address is not a public one"),
        ({"webhook": "http://2130706434/"}, "webhook", "its address is not a public one"),
        ({"webhook": "http://[::1]:8000/"}, "webhook", "its address is not a public one"),
        ({"webhook": "http://169.254.169.254/"}, "webhook", "its address is not a public one"),
        ({"webhook": "https://a.example/" + "x" * 4096}, "webhook", "longer than 4096 characters"),
        ({"webhook": 5}, "webhook", "must be text"),
        ({"webhook": ["http://a.example/"]}, "webhook", "must be text"),
        ({"track_id": "x" * 256}, "track_id", "a number or a text of at most 255 characters"),
        ({"track_id": True}, "track_id", "a number or a text of at most 255 characters"),
        ({"track_id": {"a": 1}}, "track_id", "a number or a text of at most 255 characters"),
        ({"track_id": 2**63}, "track_id", "a number or a text of at most 255 characters"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name_and_costs_nothing(
    server: RunningServer, fields: dict[str, Any], name: str, text: str
):
    with server.client() as client:
        before = client.get("/v1/get-user-credits").json()
        answer = draw(server, **fields)
        assert answer["status"] == "error"
        assert list(answer["message"]) == [name]
        assert text in answer["message"][name][0]
        assert client.get("/v1/get-user-credits").json() == before


def test_a_retry_with_the_same_idempotency_key_is_announced_once(server: RunningServer):
    with receiver() as it:
        body = {"key": server.key, **QUICK, "webhook": it.url}
        headers = {"Idempotency-Key": "announced once"}
        answers = [
            HTTP.post(f"{server.url}{PATH}", json=body, headers=headers, timeout=120).json()["id"]
            for _ in range(3)
        ]
        assert len(set(answers)) == 1
        after = draw(server, webhook=it.url)["id"]
        eventually(lambda: len(it.received) == 2)
        # Jobs are announced side by side: which of two is first is nobody's promise.
        assert sorted(received.payload["id"] for received in it.received) == [answers[0], after]


@pytest.mark.parametrize(
    ("operation", "long"),
    [
        ("text2img", {**QUICK, "num_inference_steps": 50, "samples": 4}),
        ("super_resolution", {"url": LARGE, "scale": 4}),
    ],
)
def test_a_caller_who_hangs_up_is_announced_as_failed(
    server: RunningServer, operation: str, long: dict[str, Any]
):
    url = f"{server.url}/api/v1/enterprise/{operation}"
    with receiver() as it:
        body = {"key": server.key, **long, "webhook": it.url, "track_id": operation}
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(url, json=body, timeout=httpx.Timeout(60, read=0.5))
        told = eventually(lambda: it.received)[0].payload
        assert (told["status"], told["message"]) == ("failed", "Processing failed: Request cancelled")
        assert told["track_id"] == operation
        assert told.keys() == {"status", "id", "message", "messege", "track_id"}


def test_dead_receivers_do_not_hold_up_drawing(server: RunningServer):
    with receiver() as silent:
        silent.answering.clear()
        count = 2 * AT_ONCE_PER_HOST
        refusing = nobody_listens()
        for index in range(count):
            assert draw(server, webhook=silent.url if index % 2 else refusing)["status"] == "success"
            assert draw(server, webhook=silent.url)["status"] == "success"
        eventually(lambda: len(silent.received) == AT_ONCE_PER_HOST)
        eventually(lambda: all(webhook.attempts for webhook in addressed_to(server, refusing)))
        # all pictures were there before the first attempt at the silent one came to an end
        assert {webhook.attempts for webhook in addressed_to(server, silent)} == {0}
        assert {webhook.problem for webhook in addressed_to(server, refusing)} == {"the connection failed"}
        assert metric(server, "understudy_webhooks_pending") >= 2 * count
        assert metric(server, 'understudy_webhook_attempts_total{outcome="postponed"}') >= 1
        silent.answering.set()
        eventually(lambda: not any(webhook.due_at for webhook in addressed_to(server, silent)))
        assert len({received.id for received in silent.received}) == 3 * AT_ONCE_PER_HOST
