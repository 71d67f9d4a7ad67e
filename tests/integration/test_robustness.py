"""Engines are killed, callers hang up, credits run out, the server restarts: what callers and ledgers see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from tests.receiver import nobody_listens
from tests.running_server import HTTP, RunningServer, eventually, preloading, start_server

MODEL = "stable-diffusion-v1-5"
QUICK = {
    "model_id": MODEL,
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 1,
    "enhance_prompt": "no",
}
"""Costs one millicredit."""
LONG = {**QUICK, "num_inference_steps": 50, "samples": 2}
PATH = "/api/v1/enterprise/text2img"


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """A server whose engines are killed."""
    folder = tmp_path_factory.mktemp("fragile")
    running = start_server(
        folder, preloading(demo_manifest_path, folder / "manifest", MODEL), sync_wait_s="600"
    )
    yield running
    running.stop()


def engines(server: RunningServer) -> list[int]:
    """Process ids of the server's engine processes."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if "spawn_main" in command(pid)]


def command(pid: int) -> str:
    """How a process was started; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill_engine(server: RunningServer) -> None:
    pids = engines(server)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def running(server: RunningServer) -> int:
    """How many requests engines have at the moment."""
    lines = HTTP.get(f"{server.url}/metrics").text.splitlines()
    return int(next(float(line.split()[1]) for line in lines if line.startswith("understudy_running ")))


async def books(server: RunningServer, name: str) -> tuple[int, int, Counter[str]]:
    """Balance, sum of the ledger, and how many rows of each kind an account has."""
    database = Database(database_url(server.settings))
    try:
        account = await Accounts(database).find(name)
        assert account
        rows = await Credits(database).ledger(account.id)
        return account.balance, sum(row.amount for row in rows), Counter(str(row.kind) for row in rows)
    finally:
        await database.close()


async def storm(server: RunningServer, key: str, count: int) -> list[dict[str, Any]]:
    """The answers to so many calls at once."""
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        answers = await asyncio.gather(
            *(client.post(PATH, json={"key": key, **QUICK, "seed": seed}) for seed in range(count))
        )
    return [answer.json() for answer in answers]


@pytest.mark.slow
def test_an_account_that_can_pay_for_fifty_gets_fifty_of_two_hundred(server: RunningServer):
    key = server.account("fifty", 0.050)
    answers = asyncio.run(storm(server, key, 200))
    assert Counter(answer["status"] for answer in answers) == {"success": 50, "error": 150}
    balance, ledger, rows = asyncio.run(books(server, "fifty"))
    assert (balance, ledger) == (0, 0)
    assert rows == {"grant": 1, "hold": 50, "capture": 50}


@pytest.mark.slow
def test_the_books_are_right_when_an_engine_is_killed_in_between(fragile: RunningServer):
    key = fragile.account("fifty", 0.050)
    fragile.wait_until_ready()

    async def storm_and_kill() -> list[dict[str, Any]]:
        calls = asyncio.create_task(storm(fragile, key, 200))
        await asyncio.to_thread(eventually, lambda: running(fragile) > 0)
        kill_engine(fragile)
        return await calls

    answers = asyncio.run(storm_and_kill())
    assert Counter(answer["status"] for answer in answers) == {"success": 50, "error": 150}
    balance, ledger, _ = asyncio.run(books(fragile, "fifty"))
    assert (balance, ledger) == (0, 0)


@pytest.mark.slow
def test_a_request_whose_engine_is_killed_is_drawn_by_the_next_one(fragile: RunningServer):
    fragile.wait_until_ready()
    alone = HTTP.post(
        f"{fragile.url}{PATH}", json={"key": fragile.key, **LONG, "seed": 1}, timeout=300
    ).json()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(
            HTTP.post, f"{fragile.url}{PATH}", json={"key": fragile.key, **LONG, "seed": 1}, timeout=300
        )
        eventually(lambda: running(fragile) == 1)
        kill_engine(fragile)
        eventually(lambda: HTTP.get(f"{fragile.url}/readyz").status_code == 503)
        answer = call.result().json()
    assert answer["status"] == "success"
    pictures = [HTTP.get(url).content for url in answer["output"]]
    assert pictures == [HTTP.get(url).content for url in alone["output"]]
    assert HTTP.get(f"{fragile.url}/readyz").status_code == 200


@pytest.mark.slow
def test_a_request_that_kills_every_engine_fails_and_is_refunded(fragile: RunningServer):
    key = fragile.account("unlucky", 10)
    fragile.wait_until_ready()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(HTTP.post, f"{fragile.url}{PATH}", json={"key": key, **LONG}, timeout=300)
        for _ in range(2):
            eventually(lambda: running(fragile) == 1 and engines(fragile))
            kill_engine(fragile)
            eventually(lambda: HTTP.get(f"{fragile.url}/readyz").status_code == 503)
            if not call.done():
                fragile.wait_until_ready()
        answer = call.result().json()
    assert answer["status"] == "error"
    balance, ledger, rows = asyncio.run(books(fragile, "unlucky"))
    assert (balance, ledger) == (10_000, 10_000)
    assert rows == {"grant": 1, "hold": 1, "release": 1}


def test_a_caller_who_hangs_up_is_refunded_and_the_engine_is_free_again(server: RunningServer):
    key = server.account("hanging up", 10)
    with server.calling(PATH, {"key": key, **LONG, "width": 512, "height": 512}):
        eventually(lambda: running(server) == 1)
    eventually(lambda: running(server) == 0)
    eventually(lambda: asyncio.run(books(server, "hanging up"))[0] == 10_000)
    assert asyncio.run(books(server, "hanging up"))[2] == {"grant": 1, "hold": 1, "release": 1}


@pytest.mark.parametrize(
    "path", ["//v1/get-user-credits", "/v1//get-user-credits/", "///v1/get-user-credits"]
)
def test_a_base_url_with_a_slash_at_its_end_works(server: RunningServer, path: str):
    answer = HTTP.get(f"{server.url}{path}", headers={"x-api-key": server.key})
    assert (answer.status_code, answer.json()["credits"] > 0) == (200, True)


def test_monitors_ask_with_head(server: RunningServer):
    for path in ("/livez", "/readyz", "/metrics", "/docs"):
        answer = HTTP.head(f"{server.url}{path}")
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_short_request_that_comes_later_is_finished_first(server: RunningServer):
    with ThreadPoolExecutor() as pool:
        long = pool.submit(HTTP.post, f"{server.url}{PATH}", json={"key": server.key, **LONG}, timeout=300)
        eventually(lambda: running(server) == 1)
        short = {"key": server.key, **QUICK, "num_inference_steps": 4}
        answer = HTTP.post(f"{server.url}{PATH}", json=short, timeout=300)
        assert not long.done()
        assert answer.json()["status"] == long.result().json()["status"] == "success"


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_slash_at_the_end_of_a_path_leads_nowhere_else(server: RunningServer, slashes: str):
    headers = {"x-api-key": server.key, "Host": "internal.example"}
    body = {"prompt": "a cat", "steps": 1, "width": 512, "height": 512, "seed": 3}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as client:
        plain = client.post("/v1/kolors", json=body)
        slashed = client.post(f"/v1/kolors{slashes}", json=body)
        assert (slashed.status_code, slashed.content) == (200, plain.content)
        assert client.post(f"{PATH}{slashes}", json={"key": server.key}).json()["status"] == "error"
        assert client.get(f"/v1/get-user-credits{slashes}").json()["credits"] > 0
        assert client.get(f"/v1/kolors{slashes}").json() == {"error": "Method not allowed"}
        unknown = client.post(f"/v1/nothing{slashes}", json=body)
        assert (unknown.status_code, "location" in unknown.headers) == (404, False)


@pytest.mark.slow
def test_thirty_callers_of_one_account_are_queued_and_not_refused(server: RunningServer):
    answers = asyncio.run(storm(server, server.key, 30))
    assert Counter(answer["status"] for answer in answers) == {"success": 30}


@pytest.mark.slow
def test_a_locked_database_costs_nobody_anything(fragile: RunningServer):
    fragile.wait_until_ready()
    key = fragile.account("locked out", 1)
    lock = sqlite3.connect(fragile.settings.data / "understudy.db", timeout=30)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        answer = HTTP.post(f"{fragile.url}{PATH}", json={"key": key, **QUICK}, timeout=120).json()
    finally:
        lock.rollback()
        lock.close()
    assert answer["status"] == "error"
    assert "database" in answer["message"].lower()
    assert asyncio.run(books(fragile, "locked out"))[0] == 1000
    retried = HTTP.post(f"{fragile.url}{PATH}", json={"key": key, **QUICK}, timeout=120).json()
    assert retried["status"] == "success"


@pytest.fixture(scope="module")
def kolors_manifest(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Path:
    return preloading(demo_manifest_path, tmp_path_factory.mktemp("kolors") / "manifest", "kolors")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, kolors_manifest: Path) -> Iterator[RunningServer]:
    """A server whose queue has two places; the last test that uses it kills it."""
    folder = tmp_path_factory.mktemp("own")
    running = start_server(folder, kolors_manifest, queue_limit_per_account="2", group_megapixels="0.25")
    yield running
    running.stop()


@pytest.mark.slow
def test_a_full_queue_refuses_with_a_time_to_come_back(own_server: RunningServer):
    key = own_server.account("eager", 10)

    async def calls() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=own_server.url, timeout=300) as client:
            body = {"prompt": "a cat", "steps": 5, "width": 512, "height": 512}
            posts = (client.post("/v1/kolors", json=body, headers={"x-api-key": key}) for _ in range(12))
            return await asyncio.gather(*posts)

    answers = asyncio.run(calls())
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in refused:
        assert json.loads(answer.text) == {"error": "rate_limit_exceeded"}
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-rate-limit-reset-at-utc"]
    balance, ledger, _ = asyncio.run(books(own_server, "eager"))
    assert balance == ledger


def test_after_a_crash_queued_jobs_are_drawn_and_waiting_callers_refunded(
    own_server: RunningServer, kolors_manifest: Path
):
    key = own_server.account("crashed", 10)
    headers = {"x-api-key": key}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            HTTP.post,
            f"{own_server.url}/v1/kolors",
            json={"prompt": "a cat", "steps": 50, "number_of_images": 4},
            headers=headers,
            timeout=300,
        )
        eventually(lambda: running(own_server) == 1)
        queued = HTTP.post(
            f"{own_server.url}/v2/kolors", json={"prompt": "a dog", "steps": 1, "width": 512}, headers=headers
        ).json()
        own_server.process.kill()
        own_server.process.wait()
        with pytest.raises(httpx.TransportError):
            waiting.result()
    second = start_server(own_server.log.parent, kolors_manifest, accounts=False)
    try:
        path = f"/v2/requests/{queued['request_id']}/status"
        eventually(lambda: HTTP.get(second.url + path, headers=headers).json()["status"] == "COMPLETED", 120)
        balance, ledger, rows = asyncio.run(books(second, "crashed"))
    finally:
        second.stop()
    assert rows == {"grant": 1, "hold": 2, "capture": 1, "release": 1}
    assert balance == ledger


def test_a_second_server_does_not_start_on_the_same_database(server: RunningServer, tmp_path: Path):
    variables = {
        "UNDERSTUDY_DATA": str(server.settings.data),
        "UNDERSTUDY_PORT": nobody_listens().rpartition(":")[2],
        "UNDERSTUDY_MANIFEST": str(tmp_path),
    }

    def understudy(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server", *arguments]
        return subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
        )

    second = understudy("serve")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith("Another server runs on this database")
    assert "Traceback" not in second.stderr
    assert understudy("keys", "create", "--account", "beside a server").returncode == 0
    assert understudy("webhooks", "list").returncode == 0
    answer = HTTP.post(f"{server.url}{PATH}", json={"key": server.key, **QUICK}, timeout=120)
    assert answer.json()["status"] == "success"


@pytest.mark.slow
def test_an_open_server_takes_any_key_charges_nothing_and_ends_well_with_ctrl_c(
    tmp_path: Path, kolors_manifest: Path
):
    server = start_server(tmp_path, kolors_manifest, accounts=False, auth="open")
    try:
        body = {"prompt": "a cat", "steps": 1, "width": 512, "height": 512}
        for headers in ({}, {"x-api-key": "anything"}):
            answer = HTTP.post(f"{server.url}/v1/kolors", json=body, headers=headers, timeout=120)
            assert answer.status_code == 200
            assert answer.headers["x-cost"] == "0.0"
            assert "x-remaining-credits" in answer.headers
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=60) == 0
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()
