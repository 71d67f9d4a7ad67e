"""The use-case around one drawing: callers who share an idempotency key, and one who does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.drawing import Drawing, Timings
from pipelines.image_io import RGBImage
from pipelines.messages import Absent, Maintenance
from pipelines.request import Request
from server import errors
from server.accounts.accounts import Account, Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from server.engines.dispatch import Dispatch
from server.engines.engine import EngineState
from server.engines.queue import JobQueue
from server.jobs.job import Job, JobStatus
from server.jobs.jobs import Jobs
from server.jobs.order import Order
from server.metrics import Metrics
from server.settings import Settings
from server.storage import open_storage
from server.studio import Studio
from tests.builders import text_to_image


class GatedEngine:
    """Draws black pictures once the gate is open."""

    name = "gated"
    group_pixels = 4 * 64 * 64
    resident = frozenset[str]()
    absences: tuple[Absent, ...] = ()
    state, reason = EngineState.ready, None

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def watch(self, on_change: Callable[[], None]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def restart(self) -> None: ...

    async def maintain(self, maintenance: Maintenance) -> None: ...

    async def draw(
        self, ticket_id: str, request: Request, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        await self.gate.wait()
        image = RGBImage(request.width, request.height, bytes(request.width * request.height * 3))
        timings = Timings(encode_s=0, denoise_s=0, decode_s=0)
        return Drawing(images=(image,), flagged=None, timings=timings)


class WatchedStudio(Studio):
    """Counts who waits; gives up, where a limit is set, as soon as the job runs."""

    jobs: Jobs
    waiting: asyncio.Semaphore

    async def wait(self, job: Job, timeout_s: float | None = None) -> Job:
        self.waiting.release()
        if timeout_s is None:
            return await super().wait(job)
        await self.jobs.start(job.id)
        raise TimeoutError


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[tuple[WatchedStudio, GatedEngine, Account, Credits]]:
    settings = Settings(data=folder)
    database = Database(database_url(settings))
    await database.migrate()
    account = await Accounts(database).create("somebody")
    credits = Credits(database)
    await credits.grant(account.id, 100)
    engine = GatedEngine()
    dispatch = Dispatch([engine], JobQueue(limit=10, limit_per_account=10), queue_timeout_s=60)
    jobs = Jobs(database)
    studio = WatchedStudio(jobs, dispatch, open_storage(settings), Metrics(), settings)
    studio.jobs, studio.waiting = jobs, asyncio.Semaphore(0)
    try:
        yield studio, engine, account, credits
    finally:
        await studio.stop()
        await dispatch.stop()
        await database.close()


def order(**changes: Any) -> Order:
    values: dict[str, Any] = {
        "endpoint": "text2img",
        "request": text_to_image(width=64, height=64),
        "price": 10,
        "picture_format": "jpeg",
        "synchronous": True,
    }
    return Order(**values | changes)


def test_a_retry_is_drawn_although_the_first_caller_hung_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30), opened(tmp_path) as (studio, engine, account, credits):
            same = order(idempotency_key="same", body_digest="same")
            first = asyncio.create_task(studio.draw(account, same))
            await studio.waiting.acquire()
            second = asyncio.create_task(studio.draw(account, same))
            await studio.waiting.acquire()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            engine.gate.set()
            assert (await second).status is JobStatus.succeeded
            assert await credits.balance(account.id) == 90

    asyncio.run(scenario())


async def submit_for_ever(studio: Studio, account: Account) -> None:
    while True:
        await studio.submit(account, order(price=0))
        await asyncio.sleep(0)


@pytest.mark.parametrize("engine_runs", [True, False], ids=["a full queue", "no engine"])
def test_a_retry_gets_its_first_answer_although_nothing_new_is_taken(
    tmp_path: Path, engine_runs: bool
) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30), opened(tmp_path) as (studio, engine, account, credits):
            same = order(idempotency_key="same", body_digest="same")
            engine.gate.set()
            first = await studio.draw(account, same)
            engine.gate.clear()
            refusal = errors.QueueFull if engine_runs else errors.Unavailable
            if engine_runs:
                drawn_later = order(idempotency_key="later", body_digest="same")
                unfinished = await studio.submit(account, drawn_later)
                with pytest.raises(refusal):
                    await submit_for_ever(studio, account)
                assert (await studio.submit(account, drawn_later)).id == unfinished.id
            else:
                engine.state = EngineState.failed
            balance = await credits.balance(account.id)
            assert (await studio.submit(account, same)).id == first.id
            assert (await studio.draw(account, same)).outputs == first.outputs
            assert await studio.pictures(first)
            with pytest.raises(errors.IdempotencyConflict):
                await studio.submit(account, order(idempotency_key="same", body_digest="other"))
            for other in (order(idempotency_key="other", body_digest="same"), order()):
                with pytest.raises(refusal):
                    await studio.submit(account, other)
            assert await credits.balance(account.id) == balance

    asyncio.run(scenario())


def test_who_does_not_wait_gets_the_job_as_it_is_by_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30), opened(tmp_path) as (studio, _, account, _):
            job = await studio.draw(account, order(), wait_s=1)
            assert job.status is JobStatus.running
            assert job.started_at is not None
            assert job.balance == 90

    asyncio.run(scenario())
