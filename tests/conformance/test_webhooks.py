"""The outbox on every database: recorded with the end of a job, due in order, never lost, swept when old."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from server import errors
from server.accounts.accounts import Account
from server.accounts.credits import Credits
from server.database.database import Database
from server.database.tables import jobs as jobs_table
from server.endpoints.enterprise.webhook import announcement
from server.jobs.job import Job, JobStatus, Output
from server.jobs.jobs import Jobs
from server.webhooks.outbox import Webhook, WebhookMessage, Webhooks, WebhookStatus
from tests.builders import TIMINGS, new_order

pytestmark = pytest.mark.anyio

URL = "https://receiver.example/done"
OPTIONS = {
    "webhook": {"url": URL, "public_url": "https://pictures.example"},
    "track_id": "x\0\U0001f408",
    "meta": {"prompt": "a cat"},
}


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database, announcement)


@pytest.fixture
def webhooks(database: Database) -> Webhooks:
    return Webhooks(database)


def later(**after: float) -> datetime:
    return datetime.now(UTC) + timedelta(**after)


async def test_a_success_is_announced_with_urls_below_the_callers_address(
    jobs: Jobs, webhooks: Webhooks, ada: Account
) -> None:
    job, _ = await jobs.open(ada.id, new_order(options=OPTIONS))
    await jobs.start(job.id)
    assert await webhooks.all() == []
    ended = await jobs.succeed(job.id, [Output("a-0.png", "image/png", 1)], (True,), ["cut"], TIMINGS)
    (webhook,) = await webhooks.all()
    assert (webhook.url, webhook.host, webhook.account_id) == (URL, "receiver.example", ada.id)
    assert (webhook.status, webhook.attempts) == (WebhookStatus.pending, 0)
    assert ended.started_at
    assert ended.finished_at
    told = json.loads(webhook.payload)
    assert told["meta"].items() >= {"prompt": "a cat", "file_prefix": job.file_prefix}.items()
    seconds = (ended.finished_at - ended.started_at).total_seconds()
    assert told == told | {
        "status": "success",
        "id": job.id,
        "output": ["https://pictures.example/generations/a-0.png"],
        "generationTime": round(seconds, 3),
        "nsfw_content_detected": True,
        "warning": "cut",
        "track_id": OPTIONS["track_id"],
    }


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda jobs, job: jobs.fail(job.id, "there is no '\0'", 500), "there is no '\ufffd'"),
        (lambda jobs, job: jobs.cancel(job.id), "Request cancelled"),
        (lambda jobs, _: jobs.recover(), "The server was restarted while the request was being drawn"),
    ],
)
async def test_a_failure_is_announced_with_its_words(
    jobs: Jobs, webhooks: Webhooks, ada: Account, end: Callable[..., object], words: str
) -> None:
    job, _ = await jobs.open(ada.id, new_order(options={**OPTIONS, "track_id": None}))
    await end(jobs, job)
    (webhook,) = await webhooks.all()
    told = json.loads(webhook.payload)
    assert told["message"] == told["messege"]
    assert told["message"].startswith(f"Processing failed: {words}")
    assert (told["status"], told["id"], told["track_id"]) == ("failed", job.id, None)


async def test_a_job_that_a_new_version_cannot_read_is_announced_as_failed(
    database: Database, jobs: Jobs, webhooks: Webhooks, ada: Account
) -> None:
    job, _ = await jobs.open(ada.id, new_order(synchronous=False, options=OPTIONS))
    async with database.transaction() as connection:
        other = update(jobs_table).where(jobs_table.c.id == job.id)
        await connection.execute(other.values(request='{"kind": "of another version"}'))
    assert await jobs.recover() == []
    (webhook,) = await webhooks.all()
    assert "before the server was updated" in json.loads(webhook.payload)["message"]


async def test_a_job_is_announced_once_however_often_it_is_ended(
    jobs: Jobs, webhooks: Webhooks, ada: Account
) -> None:
    order = new_order(options=OPTIONS, idempotency_key="same", body_digest="same")
    job, _ = await jobs.open(ada.id, order)
    await jobs.succeed(job.id, [], None, [], TIMINGS)
    await jobs.succeed(job.id, [], None, [], TIMINGS)
    await jobs.fail(job.id, "too late", 500)
    replay, replayed = await jobs.open(ada.id, order)
    assert (replay.id, replayed) == (job.id, True)
    assert len(await webhooks.all()) == 1


async def test_who_asks_for_no_webhook_gets_none(jobs: Jobs, webhooks: Webhooks, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order(options={"webhook": None, "track_id": 5}))
    await jobs.succeed(job.id, [], None, [], TIMINGS)
    assert await webhooks.all() == []


@pytest.mark.slow
async def test_a_job_has_not_ended_where_its_webhook_could_not_be_recorded(
    database: Database, ada: Account
) -> None:
    def broken(job: Job) -> WebhookMessage:
        assert job.status is JobStatus.succeeded
        raise ConnectionResetError("the moment of a crash")

    jobs = Jobs(database, broken)
    job, _ = await jobs.open(ada.id, new_order(options=OPTIONS))
    with pytest.raises((ConnectionResetError, errors.Unavailable)):
        await jobs.succeed(job.id, [], None, [], TIMINGS)
    assert (await jobs.find(ada.id, id=job.id)).status is JobStatus.queued
    kinds = [str(row.kind) for row in await Credits(database).ledger(ada.id)]
    assert kinds == ["grant", "hold"]


async def _due_ids(webhooks: Webhooks, now: datetime, **but: object) -> list[int]:
    ids: list[int] = []
    while webhook := await webhooks.due(now, but_not=ids, **but):
        ids.append(webhook.id)
    return ids


async def _recorded(webhooks: Webhooks) -> list[int]:
    return [webhook.id for webhook in await webhooks.all()]


async def test_messages_of_one_topic_are_due_one_after_the_other(webhooks: Webhooks, ada: Account) -> None:
    for topic in ("load 1", "load 1", "load 2", None, None):
        await webhooks.enqueue(ada.id, URL, {"status": "success"}, topic=topic)
    first, second, *others = await _recorded(webhooks)
    assert await _due_ids(webhooks, later()) == [first, *others]
    message = await webhooks.due(later())
    assert message
    await webhooks.postpone(message, "no answer", later(hours=1))
    assert await _due_ids(webhooks, later()) == others
    assert await _due_ids(webhooks, later(hours=2)) == [*others, first]
    await webhooks.give_up(message, "no answer", later())
    assert await _due_ids(webhooks, later()) == [second, *others]


async def test_hosts_and_accounts_that_are_busy_are_left_out(webhooks: Webhooks, ada: Account) -> None:
    for host in ("one.example", "one.example:8443", "TWO.example"):
        await webhooks.enqueue(ada.id, f"https://{host}/", {})
    ids = await _recorded(webhooks)
    assert await _due_ids(webhooks, later(), but_no_host={"one.example", "two.example"}) == [ids[1]]
    assert await _due_ids(webhooks, later(), but_no_account={ada.id}) == []
    assert await _due_ids(webhooks, later(), but_no_account={ada.id + 1}) == ids


async def test_what_became_of_a_message_is_kept(webhooks: Webhooks, ada: Account) -> None:
    for _ in range(3):
        await webhooks.enqueue(ada.id, URL, {"id": 1})
    one, two, three = await webhooks.all()
    await webhooks.mark_delivered(one, later())
    await webhooks.give_up(two, "the receiver answered 500", later())
    await webhooks.postpone(three, "it took too long", later(seconds=5))
    delivered, failed, pending = await webhooks.all()
    assert (delivered.status, delivered.attempts, delivered.due_at) == (WebhookStatus.delivered, 1, None)
    assert (failed.status, failed.problem) == (WebhookStatus.failed, "the receiver answered 500")
    assert (pending.status, pending.problem, pending.attempts) == (
        WebhookStatus.pending,
        "it took too long",
        1,
    )
    assert len({webhook.message_id for webhook in (delivered, failed, pending)}) == 3
    assert await webhooks.pending() == 1
    assert await webhooks.all(WebhookStatus.failed) == [failed]


async def test_a_retry_begins_anew_and_an_unknown_number_retries_nothing(
    webhooks: Webhooks, ada: Account
) -> None:
    await webhooks.enqueue(ada.id, URL, {})
    (webhook,) = await webhooks.all()
    await webhooks.give_up(webhook, "it took too long", later())
    with pytest.raises(errors.NotFound, match="no webhook 4711"):
        await webhooks.retry([webhook.id, 4711])
    assert await _due_ids(webhooks, later()) == []
    await webhooks.retry([webhook.id])
    again = await webhooks.due(later())
    assert again
    assert (again.message_id, again.attempts, again.status) == (webhook.message_id, 0, WebhookStatus.pending)
    assert again.give_up_at > webhook.give_up_at
    assert again.settled_at is None


async def test_old_messages_are_removed_but_never_one_that_waits(
    jobs: Jobs, webhooks: Webhooks, ada: Account
) -> None:
    for _ in range(3):
        job, _ = await jobs.open(ada.id, new_order(options=OPTIONS))
        await jobs.succeed(job.id, [], None, [], TIMINGS)
    delivered, given_up, waiting = await webhooks.all()
    await webhooks.mark_delivered(delivered, later())
    await webhooks.give_up(given_up, "it took too long", later())
    assert await jobs.expire(later(days=30)) == 3
    assert await webhooks.expire(later(minutes=-1)) == 0
    assert await webhooks.expire(later(days=30)) == 2
    assert [left.id for left in await webhooks.all()] == [waiting.id]


async def test_another_process_finds_what_was_recorded(
    jobs: Jobs, webhooks: Webhooks, second: Database, ada: Account
) -> None:
    job, _ = await jobs.open(ada.id, new_order(options=OPTIONS))
    await jobs.succeed(job.id, [], None, [], TIMINGS)
    found: Webhook | None = await Webhooks(second).due(later())
    assert found == (await webhooks.all())[0]


async def test_the_payload_is_ascii_whatever_a_caller_wrote(
    database: Database, webhooks: Webhooks, ada: Account
) -> None:
    await webhooks.enqueue(ada.id, URL, {"track_id": "\0 \U0001f408 \ud800"})
    async with database.reading() as connection:
        payload = (await connection.execute(text("SELECT payload FROM webhooks"))).scalar_one()
    assert payload.isascii()
    assert json.loads(payload) == {"track_id": "\0 \U0001f408 \ud800"}
