"""What receivers learn of a server that is killed again and again, at every stage of its work for them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from server.webhooks.delivery import AT_ONCE_PER_HOST
from server.webhooks.secret import webhook_secret
from tests.receiver import Received, Receiver, receiver
from tests.running_server import HTTP, RunningServer, eventually, start_server

PATH = "/api/v1/enterprise/text2img"
BODY = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "enhance_prompt": "no",
}
STEPS = (1, 3, 6, 12, 20, 30)
"""One job for each: they end one after the other, more of them than a receiver is told at the same time."""


def submit(server: RunningServer, it: Receiver) -> list[dict[str, Any]]:
    """Jobs that were accepted: their answers."""
    with server.client() as client:
        bodies = ({"key": server.key, **BODY, "num_inference_steps": n, "webhook": it.url} for n in STEPS)
        answers = [client.post(PATH, json={**body, "track_id": "kept"}).json() for body in bodies]
    assert {answer["status"] for answer in answers} == {"processing"}
    return answers


def progress_of(server: RunningServer, job: dict[str, Any]) -> bool:
    """Whether the engine has told of a step: from then on the answers know better than to guess."""
    tip = HTTP.post(job["fetch_result"], json={"key": server.key}).json()["tip"]
    return tip != "Estimated 30.0 s from now."


def rows(server: RunningServer, table: str) -> list[str]:
    """The states of what the database holds, as committed."""
    with closing(sqlite3.connect(server.settings.data / "understudy.db", timeout=30)) as connection:
        return [status for (status,) in connection.execute(f"SELECT status FROM {table} ORDER BY id")]


def upon(look: Callable[[], Any]) -> None:
    """Return within a millisecond of the moment."""
    eventually(look, 120, every_s=0.001)


def ignore(call: Received) -> None: ...


def killed_when(server: RunningServer, it: Receiver, hook: str) -> None:
    """Kill from the receiver's own thread, in the middle of the first call of this server."""
    of_others = {id(call) for call in it.received}
    killed = threading.Event()

    def kill(call: Received) -> None:
        if id(call) not in of_others:
            server.kill()
            killed.set()

    setattr(it, hook, kill)
    if not killed.wait(120):
        raise TimeoutError(server.log.read_text()[-4000:])
    setattr(it, hook, ignore)


@pytest.mark.slow
def test_kills_at_every_stage_lose_no_webhook(tmp_path: Path, demo_manifest_path: Path) -> None:
    def start(**options: Any) -> RunningServer:
        return start_server(tmp_path, demo_manifest_path, sync_wait_s="0", preload="false", **options)

    with receiver() as it:
        it.answering.clear()
        server = start()
        try:
            jobs = submit(server, it)
            upon(lambda: progress_of(server, jobs[-1]))
            upon(lambda: list(tmp_path.rglob(Path(jobs[0]["future_links"][0]).name)))
            server.kill()  # a picture is stored, others are being drawn, nobody was told
            assert {"queued", "running"} & set(rows(server, "jobs"))

            server = start(accounts=False)
            upon(lambda: set(rows(server, "jobs")) == {"succeeded"})
            server.kill()  # the last end is recorded; of earlier ones the receiver hears and says nothing
            assert rows(server, "webhooks") == ["pending"] * len(jobs)

            server = start(accounts=False, wait=False)
            killed_when(server, it, "on_taken")
            assert rows(server, "webhooks") == ["pending"] * len(jobs)

            it.answering.set()
            server = start(accounts=False, wait=False)
            killed_when(server, it, "on_answered")
            assert rows(server, "webhooks").count("pending") > len(jobs) - AT_ONCE_PER_HOST

            server = start(accounts=False, wait=False)
            upon(lambda: set(rows(server, "webhooks")) == {"delivered"})
        finally:
            server.stop()
    message_ids = {told.payload["id"]: told.id for told in it.received}
    assert message_ids.keys() == {job["id"] for job in jobs}
    assert {(told.payload["id"], told.id) for told in it.received} == set(message_ids.items())
    assert len(it.received) > len(jobs), "a call that was taken and not answered is made again"
    verifier = Verifier(webhook_secret(server.settings))
    told = [verifier.verify(received.body, received.headers) for received in it.received]
    assert {(one["status"], one["track_id"]) for one in told} == {("success", "kept")}
