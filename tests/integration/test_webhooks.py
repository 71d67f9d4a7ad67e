"""Webhooks of a running server: what receivers get, also after the server was killed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from server.database import Database, database_url
from server.webhook_secret import webhook_secret
from server.webhooks import Webhook, Webhooks, WebhookStatus
from tests.receiver import Receiver, receiver
from tests.running_server import RunningServer, eventually

PATH = "/api/v1/enterprise/text2img"
QUICK = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 1,
    "enhance_prompt": "no",
}


def draw(server: RunningServer, key: str | None = None, **fields: Any) -> dict[str, Any]:
    body = {"key": key or server.key, **QUICK, **fields}
    return httpx.post(f"{server.url}{PATH}", json=body, timeout=120).json()


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
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_picture_is_announced_with_what_the_call_was_answered_and_a_signature(server: RunningServer):
    with receiver() as it:
        answer = draw(server, webhook=f"{it.url}/done?job=1", track_id="order-17", samples=2)
        assert (answer["status"], answer["track_id"]) == ("success", "order-17")
        received = eventually(lambda: it.received)[0]
        assert received.path == "/done?job=1"
        assert received.headers["content-type"] == "application/json"
        assert received.payload == answer
        assert [httpx.get(url).status_code for url in received.payload["output"]] == [200, 200]
        verifier = Verifier(webhook_secret(server.settings))
        assert verifier.verify(received.body, received.headers) == answer
        with pytest.raises(WebhookVerificationError):
            verifier.verify(received.body.replace(b"success", b"succeed"), received.headers)
        eventually(lambda: [w.status for w in addressed_to(server, it)] == [WebhookStatus.delivered])
    assert metric(server, 'understudy_webhook_attempts_total{outcome="delivered"}') >= 1
