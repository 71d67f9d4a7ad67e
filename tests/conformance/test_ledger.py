"""The balance is the sum of the ledger, whatever happens and however often at once."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, select

from server import errors
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits, Movement
from server.database.database import Database
from server.database.tables import accounts, ledger
from server.jobs.job import Job, JobStatus
from server.jobs.jobs import Jobs
from tests.builders import TIMINGS, new_order

pytestmark = pytest.mark.anyio

UNFINISHED = (JobStatus.queued, JobStatus.running)


async def _account_with(database: Database, millicredits: int) -> int:
    account = await Accounts(database).create("ada")
    await Credits(database).grant(account.id, millicredits)
    return account.id


async def _assert_balances_are_ledger_sums(database: Database) -> None:
    total = func.coalesce(func.sum(ledger.c.amount), 0)
    summed = select(accounts.c.name, accounts.c.balance, total).outerjoin(ledger).group_by(accounts.c.id)
    async with database.reading() as connection:
        for name, balance, total_of_ledger in (await connection.execute(summed)).all():
            assert balance == total_of_ledger, name
            assert balance >= 0, name


async def test_an_account_that_can_pay_for_50_of_200_jobs_at_once_gets_exactly_50(
    database: Database, second: Database
) -> None:
    account_id = await _account_with(database, 500)
    callers = [Jobs(database), Jobs(second)]
    opening = (callers[number % 2].open(account_id, new_order(price=10)) for number in range(200))
    outcomes = await asyncio.gather(*opening, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, errors.InsufficientCredits)]
    opened = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    assert (len(opened), len(refused)) == (50, 150)
    assert sorted(job.balance for job in opened) == list(range(0, 500, 10))
    assert all(refusal.balance < refusal.required for refusal in refused)
    rows = await Credits(database).ledger(account_id)
    assert sum(row.amount for row in rows) == await Credits(database).balance(account_id) == 0
    assert [row.kind for row in rows] == [Movement.grant] + [Movement.hold] * 50


async def test_jobs_that_end_twice_at_once_are_settled_once(database: Database, second: Database) -> None:
    account_id = await _account_with(database, 1000)
    here, there = Jobs(database), Jobs(second)
    opened = [(await here.open(account_id, new_order(price=10)))[0] for _ in range(20)]
    await asyncio.gather(
        *(here.succeed(job.id, [], None, [], TIMINGS) for job in opened),
        *(there.fail(job.id, "broken", 500) for job in opened),
        *(there.cancel(job.id) for job in opened),
    )
    ended = [await here.find(account_id, id=job.id) for job in opened]
    kept = sum(job.status is JobStatus.succeeded for job in ended)
    assert await Credits(database).balance(account_id) == 1000 - 10 * kept
    kinds = [row.kind for row in await Credits(database).ledger(account_id)]
    assert kinds.count(Movement.capture) == kept
    assert kinds.count(Movement.release) == 20 - kept
    await _assert_balances_are_ledger_sums(database)


@dataclass
class Expected:
    """What a random walk has done so far, in plain numbers."""

    balance: int = 0
    prices: dict[int, int] = field(default_factory=dict[int, int])
    statuses: dict[int, JobStatus] = field(default_factory=dict[int, JobStatus])
    asynchronous: set[int] = field(default_factory=set[int])

    def end(self, job_id: int, status: JobStatus) -> None:
        if self.statuses[job_id] in UNFINISHED:
            self.statuses[job_id] = status
            if status is not JobStatus.succeeded:
                self.balance += self.prices[job_id]


@pytest.mark.parametrize("seed", range(2))
async def test_the_ledger_holds_after_every_step_of_a_random_walk(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    account = await Accounts(database).create("ada")
    jobs, credits, expected = Jobs(database), Credits(database), Expected()

    async def grant() -> None:
        amount = chance.randrange(1, 60)
        expected.balance += amount
        assert await credits.grant(account.id, amount) == expected.balance

    async def open_job() -> None:
        price, synchronous = chance.randrange(0, 25), chance.random() < 0.5
        order = new_order(price=price, synchronous=synchronous)
        if price > expected.balance:
            with pytest.raises(errors.InsufficientCredits):
                await jobs.open(account.id, order)
            return
        job, _ = await jobs.open(account.id, order)
        expected.balance -= price
        expected.prices[job.id], expected.statuses[job.id] = price, JobStatus.queued
        if not synchronous:
            expected.asynchronous.add(job.id)
        assert job.balance == expected.balance

    async def start(job_id: int) -> None:
        await jobs.start(job_id)
        if expected.statuses[job_id] in UNFINISHED:
            expected.statuses[job_id] = JobStatus.running

    async def end(job_id: int) -> None:
        status = chance.choice([JobStatus.succeeded, JobStatus.failed, JobStatus.cancelled])
        ended: Job
        match status:
            case JobStatus.succeeded:
                ended = await jobs.succeed(job_id, [], None, [], TIMINGS)
            case JobStatus.failed:
                ended = await jobs.fail(job_id, "broken", 500)
            case _:
                ended = await jobs.cancel(job_id)
        expected.end(job_id, status)
        assert (ended.status, ended.balance) == (expected.statuses[job_id], expected.balance)

    async def crash() -> None:
        recovered = [job.id for job in await jobs.recover()]
        unfinished = [job_id for job_id, status in expected.statuses.items() if status in UNFINISHED]
        assert recovered == [job_id for job_id in unfinished if job_id in expected.asynchronous]
        for job_id in unfinished:
            if job_id in expected.asynchronous:
                expected.statuses[job_id] = JobStatus.queued
            else:
                expected.end(job_id, JobStatus.failed)

    for _ in range(100):
        move = chance.choices(["grant", "open", "start", "end", "crash"], [2, 5, 3, 5, 1])[0]
        if move == "grant":
            await grant()
        elif move == "crash":
            await crash()
        elif move == "open" or not expected.prices:
            await open_job()
        else:
            await (start if move == "start" else end)(chance.choice(list(expected.prices)))
        assert await credits.balance(account.id) == expected.balance
        await _assert_balances_are_ledger_sums(database)
    statuses = {job_id: (await jobs.find(account.id, id=job_id)).status for job_id in expected.statuses}
    assert statuses == expected.statuses
    assert len(set(statuses.values())) >= 4, "the walk was too tame to show anything"


async def test_a_caller_who_leaves_while_a_job_is_opened_pays_nothing(
    database: Database, queued: Callable[[int], Awaitable[int]]
) -> None:
    account_id = await _account_with(database, 1000)
    jobs, left = Jobs(database), 0
    for turns_of_the_loop in range(30):
        opening = asyncio.create_task(jobs.open(account_id, new_order()))
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            job, _ = await opening
            await jobs.cancel(job.id)
        except asyncio.CancelledError:
            left += 1
        assert await Credits(database).balance(account_id) == 1000
        assert await queued(account_id) == 0
        await _assert_balances_are_ledger_sums(database)
    assert left > 0


async def test_the_end_of_a_job_is_written_even_when_nobody_awaits_it_any_more(database: Database) -> None:
    account_id = await _account_with(database, 1000)
    jobs = Jobs(database)
    for turns_of_the_loop in range(10):
        job, _ = await jobs.open(account_id, new_order())
        failing = asyncio.create_task(jobs.fail(job.id, "broken", 500))
        for _ in range(turns_of_the_loop + 1):
            await asyncio.sleep(0)
        failing.cancel()
        await asyncio.gather(failing, return_exceptions=True)
        assert (await jobs.find(account_id, id=job.id)).status is JobStatus.failed
        assert await Credits(database).balance(account_id) == 1000


async def test_the_end_of_a_job_outlasts_a_locked_database(database: Database, impatient: Database) -> None:
    account_id = await _account_with(database, 1000)
    job, _ = await Jobs(database).open(account_id, new_order())
    async with database.transaction() as lock:
        await lock.execute(accounts.update().values(is_administrator=True))
        failing = asyncio.create_task(Jobs(impatient).fail(job.id, "broken", 500))
        done, _ = await asyncio.wait({failing}, timeout=0.2)
        assert not done, "one time-out was enough to give up"
    assert (await failing).status is JobStatus.failed
    assert await Credits(database).balance(account_id) == 1000


WORKER = """
import asyncio
from tests.builders import TIMINGS, new_order
from server.database.database import Database
from server.jobs.jobs import Jobs

async def work():
    jobs = Jobs(Database({url!r}, busy_timeout_s=30))

    async def draw(number):
        for turn in range(10_000):
            job, _ = await jobs.open({account}, new_order(synchronous=bool(turn % 2)))
            await jobs.start(job.id)
            if turn % 3:
                await jobs.succeed(job.id, [], None, [], TIMINGS)
            else:
                await jobs.fail(job.id, "broken", 500)
            print(job.id, flush=True)

    await asyncio.gather(*(draw(number) for number in range(8)))

asyncio.run(work())
"""


async def test_a_server_killed_in_the_middle_leaves_nothing_half_charged(
    database: Database, pytestconfig: pytest.Config
) -> None:
    account_id = await _account_with(database, 10_000_000)
    program = WORKER.format(url=database.url, account=account_id)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=pytestconfig.rootpath, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    for _ in range(30):
        assert (await worker.stdout.readline()).strip().isdigit()
    worker.kill()
    await worker.wait()
    await _assert_balances_are_ledger_sums(database)

    jobs = Jobs(database)
    for job in await jobs.recover():
        assert (job.status, job.order.synchronous) == (JobStatus.queued, False)
        await jobs.cancel(job.id)
    await _assert_balances_are_ledger_sums(database)
    rows = await Credits(database).ledger(account_id)
    kinds = [row.kind for row in rows]
    assert kinds.count(Movement.hold) == kinds.count(Movement.capture) + kinds.count(Movement.release)
    spent = kinds.count(Movement.capture) * 10
    assert await Credits(database).balance(account_id) == 10_000_000 - spent
