"""A process that is killed between any two statements of two jobs' lives owes nobody a word or a credit.

Each life is one of a real process on a real database, with a real receiver; it ends itself by SIGKILL one
event of the database later than the one before it, until one gets through.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import event

from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.database.database import Database
from server.endpoints.enterprise.webhook import announcement
from server.jobs.job import Job, Output
from server.jobs.jobs import Jobs
from server.metrics import Metrics
from server.outside.public_http import PublicHTTP
from server.webhooks.delivery import Deliveries
from server.webhooks.outbox import Webhook, Webhooks, WebhookStatus
from tests.builders import TIMINGS, new_order
from tests.receiver import Received, Receiver, receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GRANTED, PRICE = 1000, 10
PATIENCE_S = 30.0
EVENTS = ("before_cursor_execute", "commit")
"""After a statement, as the database sees it, is before the next one or before the commit."""


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Database]:
    database = Database(url, busy_timeout_s=PATIENCE_S)
    try:
        yield database
    finally:
        await database.close()


def die_at(database: Database, nth: int) -> None:
    """Kill this process at the nth event from now on."""
    left = iter(range(nth))

    def happen(*_: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in EVENTS:
        event.listen(database.engine.sync_engine, name, happen)


async def deliver(database: Database) -> None:
    """Until nothing is due, with a clock that is a little late, so that what was recorded just now is due."""
    webhooks = Webhooks(database)
    late = datetime.now(UTC) + timedelta(seconds=1)
    deliveries = Deliveries(webhooks, PublicHTTP(["127.0.0.1/32"]), SECRET, Metrics(), now=lambda: late)
    while await webhooks.due(late):
        await deliveries.begin()
        await deliveries.wait()


async def finish(database: Database, jobs: Jobs, job: Job) -> None:
    """Draw it; another message of the same topic follows its end."""
    await jobs.start(job.id)
    await jobs.succeed(job.id, [Output("a-0.png", "image/png", 1)], None, [], TIMINGS)
    await Webhooks(database).enqueue(
        job.account_id, job.order.endpoint, {"after": job.id}, topic=f"job {job.id}"
    )


async def live(url: str, account: int, there: str, nth: int) -> None:
    """The life that is cut short: one job that somebody waits for, one that somebody comes back for."""
    async with opened(url) as database:
        jobs = Jobs(database, announcement)
        die_at(database, nth)
        options = {"webhook": {"url": there, "public_url": "http://pictures.example"}}
        for synchronous in (True, False):
            job, _ = await jobs.open(
                account, new_order(synchronous=synchronous, price=PRICE, options=options, endpoint=there)
            )
            await finish(database, jobs, job)
        await deliver(database)


def killed_at(url: str, account: int, there: Receiver, nth: int) -> bool:
    """Whether a life came so far as to its nth event."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: asyncio.run(live(url, account, there.url, nth))
    )
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


async def new_account(database: Database, name: str) -> int:
    account = await Accounts(database).create(name)
    await Credits(database).grant(account.id, GRANTED)
    return account.id


async def begin(url: str) -> int:
    async with opened(url) as database:
        await database.migrate()
        return await new_account(database, "killed at once")


async def live_on(url: str, account: int, there: Receiver) -> tuple[int, int]:
    """The life after it, as a server's start, and what came of it.

    Returns:
        how many messages there were, and the account for the next life.
    """
    async with opened(url) as database:
        jobs, credits = Jobs(database, announcement), Credits(database)
        for job in await jobs.recover():
            await finish(database, jobs, job)
        await deliver(database)
        messages = [one for one in await Webhooks(database).all() if one.account_id == account]
        kinds = Counter(str(row.kind) for row in await credits.ledger(account))
        check(messages, await credits.balance(account), kinds, there.received)
        return len(messages), await new_account(database, f"the one after {account}")


def check(messages: list[Webhook], balance: int, kinds: Counter[str], received: list[Received]) -> None:
    assert {message.status for message in messages} <= {WebhookStatus.delivered}
    told = list(dict.fromkeys(one.id for one in received))
    assert sorted(told) == sorted(message.message_id for message in messages)
    for topic in {message.topic for message in messages}:
        ids = [message.message_id for message in messages if message.topic == topic]
        assert [id for id in told if id in ids] == ids, "in order"
    ends = {one.payload["id"]: one.payload["status"] for one in received if "status" in one.payload}
    assert len({one.id for one in received if "status" in one.payload}) == len(ends), "one end each"
    statuses = Counter(ends.values())
    assert kinds["hold"] == len(ends), "every job that was paid for has been announced"
    assert (kinds["capture"], kinds["release"]) == (statuses["success"], statuses["failed"])
    assert balance == GRANTED - PRICE * statuses["success"]


@pytest.mark.slow
def test_a_kill_at_any_statement_loses_no_webhook_and_no_credits(shared_url: str) -> None:
    counts: set[int] = set()
    repeated = nth = 0
    account = asyncio.run(begin(shared_url))
    with receiver() as there:
        for nth in count():
            there.received.clear()
            killed = killed_at(shared_url, account, there, nth)
            told, account = asyncio.run(live_on(shared_url, account, there))
            counts.add(told)
            repeated += len(there.received) > told
            if not killed:
                break
    assert nth > 30, "many moments"
    assert counts >= {0, 1, 2, 3, 4}, "moments before and after the end of each job"
    assert repeated > 0, "moments between an answer and its record"
