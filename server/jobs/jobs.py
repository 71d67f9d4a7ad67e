"""Jobs: queued -> running -> succeeded, failed or cancelled; each change moves its credits along."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import LargeBinary, Row, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pipelines.drawing import Timings
from server import errors
from server.accounts import credits
from server.database.database import Database
from server.database.expiry import delete_expired
from server.database.tables import UTCDateTime, jobs
from server.database.uninterrupted import uninterrupted
from server.database.upserts import insert_or_nothing
from server.jobs import records
from server.jobs.job import Job, JobStatus, Output
from server.jobs.order import Order
from server.webhooks import outbox
from server.webhooks.outbox import WebhookMessage

T = TypeVar("T")

CLOSING_ATTEMPTS = 6
"""The most attempts to write the end of a job into a database that stays locked."""

_RESTARTED = "The server was restarted while the request was being drawn, try again"
_OUTDATED = "The request was made before the server was updated and cannot be drawn any more, try again"

_this = jobs.c.id == bindparam("job")
_unfinished = jobs.c.status.in_([JobStatus.queued.value, JobStatus.running.value])

_OPEN = insert_or_nothing(jobs, jobs.c.id)
_EARLIER = select(*records.COLUMNS).where(
    jobs.c.account_id == bindparam("account"), jobs.c.idempotency_key == bindparam("key")
)
_START = (
    update(jobs)
    .where(_this, _unfinished)
    .values(
        status=JobStatus.running.value,
        attempts=jobs.c.attempts + 1,
        started_at=func.coalesce(jobs.c.started_at, bindparam("now", type_=UTCDateTime)),
    )
)
_DETACH = (
    update(jobs)
    .where(_this, _unfinished)
    .values(
        synchronous=False,
        picture=func.coalesce(bindparam("picture", type_=LargeBinary), jobs.c.picture),
    )
)
_END = update(jobs).where(_this, _unfinished).returning(*records.COLUMNS)
_BY_ID = select(*records.COLUMNS).where(_this)
_OWN_BY_ID = _BY_ID.where(jobs.c.account_id == bindparam("account"))
_OWN_BY_REQUEST_ID = select(*records.COLUMNS).where(
    jobs.c.request_id == bindparam("request_id"), jobs.c.account_id == bindparam("account")
)


class Jobs:
    """The jobs of one database.

    A change that was begun is finished even when the task that awaits it is cancelled.
    """

    def __init__(
        self, database: Database, webhook_message: Callable[[Job], WebhookMessage | None] = lambda _: None
    ) -> None:
        """
        Args:
            webhook_message: the message about a job that has ended; None where no receiver wants one. It is
                called inside the transaction that ends the job; when it raises, the job has not ended.
        """
        self._database = database
        self._webhook_message = webhook_message

    async def open(self, account_id: int, order: Order) -> tuple[Job, bool]:
        """Record a job and hold its price; when the awaiting task is cancelled, nothing of both remains.

        Returns:
            the job, and whether it is an earlier one of the same account with this idempotency key.
        Raises:
            InsufficientCredits, IdempotencyConflict, MalformedBody, Unavailable: nothing was charged.
        """

        async def undo(opened: tuple[Job, bool]) -> None:
            job, replayed = opened
            if not replayed:
                await self.cancel(job.id)

        return await uninterrupted(self._open(account_id, order), undo)

    async def earlier(self, account_id: int, order: Order) -> Job | None:
        """The job that this account has opened with the order's idempotency key; it may not have ended yet.

        Raises:
            IdempotencyConflict: it was for another body.
        """
        async with self._database.reading() as connection:
            return await _earlier(connection, account_id, order)

    async def start(self, job_id: int) -> None:
        """Record that drawing begins, maybe not for the first time."""
        await self._change(_START, {"job": job_id, "now": datetime.now(UTC)})

    async def detach(self, job: Job) -> None:
        """Let a job go on without its caller: after a crash it is drawn again instead of refunded.

        Args:
            job: as `open` returned it; pictures of its request are kept from now on.
        """
        await self._change(_DETACH, {"job": job.id, "picture": records.pixels(job.request)})

    async def succeed(
        self,
        job_id: int,
        outputs: Sequence[Output],
        drawing_flagged: Sequence[bool] | None,
        warnings: Sequence[str],
        timings: Timings,
    ) -> Job:
        """Record the stored pictures and keep the price. A job that has ended stays as it is.

        Raises:
            Unavailable: the database stayed locked; the job is still unfinished.
        """
        values = records.write_end(outputs, drawing_flagged, warnings, timings)

        async def keep(connection: AsyncConnection) -> int | None:
            await credits.capture(connection, job_id)
            return None

        return await self._end(job_id, JobStatus.succeeded, values, keep)

    async def fail(self, job_id: int, error: str, status: int) -> Job:
        """Give the price back and free the idempotency key. A job that has ended stays as it is.

        Args:
            error: the text for the caller.
            status: HTTP status of the answer.
        """
        return await self._give_back(job_id, JobStatus.failed, error, status)

    async def cancel(self, job_id: int) -> Job:
        """End the job at its caller's wish: the price goes back and the idempotency key is free again."""
        gone = errors.CallerGone()
        return await self._give_back(job_id, JobStatus.cancelled, str(gone), gone.status)

    async def find(self, account_id: int, *, request_id: str | None = None, id: int | None = None) -> Job:
        """The job of this account with this id.

        Raises:
            NotFound: unknown, or another account's.
        """
        unknown = errors.NotFound(f"Request {id if request_id is None else request_id} not found")
        if request_id is not None:
            if not _is_uuid(request_id):
                raise unknown
            statement, values = _OWN_BY_REQUEST_ID, {"request_id": request_id, "account": account_id}
        else:
            if id is None or not 0 < id < 2**63:
                raise unknown
            statement, values = _OWN_BY_ID, {"job": id, "account": account_id}
        async with self._database.reading() as connection:
            row = (await connection.execute(statement, values)).one_or_none()
        if row is None:
            raise unknown
        try:
            return records.read(row)
        except ValidationError:
            raise unknown from None  # written by another version, in a form that this one does not read

    async def recover(self) -> list[Job]:
        """Clear up after a crash; only while no other server works on this database.

        Jobs that somebody waited for are refunded and failed, the others are queued again.

        Returns:
            the jobs to draw, oldest first, with their pictures.
        """
        async with self._database.reading() as connection:
            lost = select(jobs.c.id).where(_unfinished, jobs.c.synchronous).order_by(jobs.c.id)
            lost_ids = (await connection.execute(lost)).scalars().all()
        for job_id in lost_ids:
            await self.fail(job_id, _RESTARTED, errors.Unavailable.status)
        async with self._database.transaction() as connection:
            again = update(jobs).where(_unfinished).values(status=JobStatus.queued.value, started_at=None)
            await connection.execute(again)
            left = select(*records.COLUMNS, jobs.c.picture).where(_unfinished)
            rows = (await connection.execute(left.order_by(jobs.c.id))).all()
        recovered = [await self._recover_one(row) for row in rows]
        return [job for job in recovered if job is not None]

    async def expire(self, before: datetime) -> int:
        """Remove the records of jobs that ended before this moment; the ledger stays.

        Returns:
            how many were removed.
        """
        return await delete_expired(self._database, jobs, jobs.c.finished_at < before)

    async def _open(self, account_id: int, order: Order) -> tuple[Job, bool]:
        job = Job(
            account_id=account_id,
            order=order,
            request_id=order.request_id or str(uuid.uuid4()),
            file_prefix=str(uuid.uuid4()),
            created_at=datetime.now(UTC),
        )
        values = records.write(job)
        while True:
            async with self._database.transaction() as connection:
                job_id = (await connection.execute(_OPEN[connection.dialect.name], values)).scalar()
                if job_id is not None:
                    balance = await credits.hold(connection, account_id, job_id, order.price)
                    return replace(job, id=job_id, balance=balance), False
                earlier = await _earlier(connection, account_id, order)
            # none there any more: it failed a moment ago and its key is free again
            if earlier is not None:
                return earlier, True

    async def _give_back(self, job_id: int, status: JobStatus, error: str, error_status: int) -> Job:
        # PostgreSQL's text holds neither NUL nor half a surrogate pair, and a caller's words may be in here
        error = error.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        values = {"error": error, "error_status": error_status, "idempotency_key": None}

        async def give_back(connection: AsyncConnection) -> int | None:
            return await credits.release(connection, job_id)

        return await self._end(job_id, status, values, give_back)

    async def _end(
        self,
        job_id: int,
        status: JobStatus,
        values: dict[str, Any],
        settle: Callable[[AsyncConnection], Awaitable[int | None]],
    ) -> Job:
        values = {
            **values,
            "job": job_id,
            "status": status.value,
            "finished_at": datetime.now(UTC),
            "picture": None,
        }

        async def end() -> Job:
            async with self._database.transaction() as connection:
                ended = (await connection.execute(_END, values)).one_or_none()
                balance = None
                if ended is not None:
                    balance = await settle(connection)
                    message = self._webhook_message(records.read_outcome(ended))
                    if message is not None:
                        await outbox.record(connection, ended.account_id, message, topic=f"job {job_id}")
                row = ended or (await connection.execute(_BY_ID, {"job": job_id})).one_or_none()
            if row is None:
                raise errors.NotFound(f"Request {job_id} not found")
            return records.read(row, balance=balance)

        return await uninterrupted(_retry_while_locked(end))

    async def _change(self, statement: Any, values: dict[str, Any]) -> None:
        async def change() -> None:
            async with self._database.transaction() as connection:
                await connection.execute(statement, values)

        await uninterrupted(_retry_while_locked(change))

    async def _recover_one(self, row: Row[Any]) -> Job | None:
        with suppress(ValidationError):
            job = records.with_pictures(records.read(row), row.picture)
            if job is not None:
                return job
        with suppress(ValidationError):  # refunded all the same; only its request cannot be read
            await self.fail(row.id, _OUTDATED, errors.Unavailable.status)
        return None


async def _earlier(connection: AsyncConnection, account_id: int, order: Order) -> Job | None:
    values = {"account": account_id, "key": order.idempotency_key}
    row = (await connection.execute(_EARLIER, values)).one_or_none()
    if row is not None and row.body_digest != order.body_digest:
        raise errors.IdempotencyConflict
    return None if row is None else records.read(row)


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and text.isascii() and text.isprintable()


async def _retry_while_locked(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work, again and again while the database is locked: a job's end must outlast a busy moment."""
    for attempt in range(CLOSING_ATTEMPTS - 1):
        with suppress(errors.Unavailable):
            return await work()
        await asyncio.sleep(0.1 * 2**attempt)
    return await work()
