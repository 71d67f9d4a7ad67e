"""The outbox of webhooks: messages for receivers, kept until they are delivered or given up.

A message about a job is recorded in the transaction that ends the job, so there is no moment at which a crash
could lose it. Messages of one topic are due one after the other.
"""

# Why: server/decisions/0006.

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import httpx
from sqlalchemy import Row, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server import errors
from server.database.database import Database
from server.database.expiry import delete_expired
from server.database.tables import UTCDateTime, webhooks

FIRST_PAUSE_S = 5.0
"""The seconds between the first attempt and the second."""
LONGEST_PAUSE_S = 86_400.0
"""The most seconds between two attempts."""
GIVE_UP_AFTER = timedelta(days=5)
"""The time since a message was recorded, or since an operator's retry, after which it is given up."""


class WebhookStatus(StrEnum):
    """The state of a message, as its row in the outbox has it."""

    pending = "pending"
    delivered = "delivered"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message for a receiver. ``url``: its http or https address; ``payload``: a JSON object."""

    url: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A message in the outbox.

    Attributes:
        id: counts up.
        message_id: the id by which the receiver knows it; the same in every attempt.
        topic: messages of one topic arrive in the order of their ids.
        payload: the JSON text that is signed and sent.
        attempts: how many were made.
        problem: why the last attempt failed.
        due_at: when the next attempt may begin; None when there is none.
        settled_at: when it was delivered or given up.
    """

    id: int
    message_id: str
    account_id: int
    topic: str
    url: str
    host: str
    payload: str
    status: WebhookStatus
    attempts: int
    problem: str | None
    created_at: datetime
    due_at: datetime | None
    give_up_at: datetime
    settled_at: datetime | None


_FIELDS = tuple(field.name for field in fields(Webhook))
_COLUMNS = tuple(webhooks.c[name] for name in _FIELDS)
_RECORD = insert(webhooks).returning(webhooks.c.message_id)
_BEFORE = webhooks.alias("before")
_IS_FIRST = ~(
    select(_BEFORE.c.id)
    .where(_BEFORE.c.topic == webhooks.c.topic, _BEFORE.c.due_at.is_not(None), _BEFORE.c.id < webhooks.c.id)
    .exists()
)
_DUE = (
    select(*_COLUMNS)
    .where(
        webhooks.c.due_at <= bindparam("now", type_=UTCDateTime),
        webhooks.c.id.not_in(bindparam("but_not", expanding=True)),
        webhooks.c.host.not_in(bindparam("but_no_host", expanding=True)),
        webhooks.c.account_id.not_in(bindparam("but_no_account", expanding=True)),
        _IS_FIRST,
    )
    .order_by(webhooks.c.due_at, webhooks.c.id)
    .limit(1)
)
_PENDING = select(func.count()).select_from(webhooks).where(webhooks.c.due_at.is_not(None))
_SETTLE = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("webhook"))
    .values(attempts=webhooks.c.attempts + 1)
    .returning(webhooks.c.id)
)
_AGAIN = update(webhooks).where(webhooks.c.id == bindparam("webhook")).returning(webhooks.c.id)


async def record(
    connection: AsyncConnection, account_id: int, message: WebhookMessage, *, topic: str | None = None
) -> str:
    """Put a message into the outbox, inside the caller's transaction.

    Args:
        topic: None: a topic of its own.
    Returns:
        its message id.
    """
    message_id = f"msg_{uuid.uuid4().hex}"
    now = datetime.now(UTC)
    values = {
        "message_id": message_id,
        "account_id": account_id,
        "topic": topic or message_id,
        "url": message.url,
        "host": httpx.URL(message.url).netloc.decode("ascii"),
        # ASCII: whatever a caller wrote, NUL included, is escaped
        "payload": json.dumps(message.payload),
        "status": WebhookStatus.pending.value,
        "attempts": 0,
        "created_at": now,
        "due_at": now,
        "give_up_at": now + GIVE_UP_AFTER,
    }
    return (await connection.execute(_RECORD, values)).scalar_one()


def pause_s(attempts: int, jitter: Callable[[], float] = random.random) -> float:
    """Seconds before the next attempt: 5, doubled by each failure up to a day; by chance a fifth less.

    Args:
        attempts: how many have failed, at least 1.
        jitter: 0 to 1.
    """
    longest = min(FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 32), LONGEST_PAUSE_S)
    return longest * (1 - jitter() / 5)


class Webhooks:
    """The outbox of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(
        self, account_id: int, url: str, payload: Mapping[str, object], *, topic: str | None = None
    ) -> str:
        """Record a message that belongs to no job; it is delivered soon, by the server's deliverer.

        Args:
            url: http or https, as `endpoints.enterprise.webhook` has checked it.
            payload: a JSON object.
            topic: messages of one topic are delivered in the order of their recording; None: no such order.
        Returns:
            its message id.
        """
        async with self._database.transaction() as connection:
            return await record(connection, account_id, WebhookMessage(url, payload), topic=topic)

    async def due(
        self,
        now: datetime,
        *,
        but_not: Collection[int] = (),
        but_no_host: Collection[str] = (),
        but_no_account: Collection[int] = (),
    ) -> Webhook | None:
        """The message that has been due for the longest time, of those that are first in their topic."""
        values = {
            "now": now,
            "but_not": list(but_not),
            "but_no_host": list(but_no_host),
            "but_no_account": list(but_no_account),
        }
        async with self._database.reading() as connection:
            row = (await connection.execute(_DUE, values)).one_or_none()
        return None if row is None else _read(row)

    async def mark_delivered(self, webhook: Webhook, now: datetime) -> None:
        """Record that the receiver has the message."""
        await self._settle(webhook, status=WebhookStatus.delivered.value, settled_at=now, due_at=None)

    async def postpone(self, webhook: Webhook, problem: str, until: datetime) -> None:
        """Record an attempt that failed, and when the next one may begin."""
        await self._settle(webhook, problem=problem, due_at=until)

    async def give_up(self, webhook: Webhook, problem: str, now: datetime) -> None:
        """Record an attempt that failed and was the last one."""
        await self._settle(
            webhook, status=WebhookStatus.failed.value, problem=problem, settled_at=now, due_at=None
        )

    async def retry(self, ids: Sequence[int]) -> None:
        """Make messages due now, whatever became of them; their back-off begins anew.

        Raises:
            NotFound: no such message; then none is retried.
        """
        now = datetime.now(UTC)
        values = {
            "status": WebhookStatus.pending.value,
            "attempts": 0,
            "due_at": now,
            "give_up_at": now + GIVE_UP_AFTER,
            "settled_at": None,
        }
        async with self._database.transaction() as connection:
            for id in ids:
                again = await connection.execute(_AGAIN.values(**values), {"webhook": id})
                if again.one_or_none() is None:
                    raise errors.NotFound(f"There is no webhook {id}")

    async def all(self, status: WebhookStatus | None = None) -> list[Webhook]:
        """The messages that are kept, oldest first."""
        kept = select(*_COLUMNS).order_by(webhooks.c.id)
        if status is not None:
            kept = kept.where(webhooks.c.status == status.value)
        async with self._database.reading() as connection:
            return [_read(row) for row in (await connection.execute(kept)).all()]

    async def pending(self) -> int:
        """The number of messages that wait for an attempt, their first or another one."""
        async with self._database.reading() as connection:
            return (await connection.execute(_PENDING)).scalar_one()

    async def expire(self, before: datetime) -> int:
        """Remove messages that were delivered or given up before this moment; a pending one stays.

        Returns:
            how many were removed.
        """
        return await delete_expired(self._database, webhooks, webhooks.c.settled_at < before)

    async def _settle(self, webhook: Webhook, **values: object) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SETTLE.values(**values), {"webhook": webhook.id})


def _read(row: Row[Any]) -> Webhook:
    stored = row._mapping  # pyright: ignore[reportPrivateUsage] (documented; the underscore avoids column names)
    values: dict[str, Any] = {name: stored[name] for name in _FIELDS}
    values["status"] = WebhookStatus(values["status"])
    return Webhook(**values)
