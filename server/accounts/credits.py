"""Credits: hold, capture, release, and the ledger that says where every millicredit went.

The functions work inside the transaction of their caller. A hold takes the price off the balance at once, so
a capture moves nothing more; both are in the ledger, where a job has room for one hold and one settlement.
"""

# Why: server/decisions/0004.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, bindparam, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from server import errors
from server.database.database import Database
from server.database.tables import UTCDateTime, accounts, ledger
from server.database.upserts import insert_or_nothing

MAX_GRANT = 10**15
"""The most millicredits of one grant; a 64-bit balance holds thousands of such grants."""


class Movement(StrEnum):
    """The kinds of rows in the ledger."""

    grant = "grant"
    hold = "hold"
    capture = "capture"
    release = "release"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One movement of credits. ``amount``: millicredits added; negative for a hold, 0 for a capture."""

    id: int
    account_id: int
    job_id: int | None
    kind: Movement
    amount: int
    note: str
    created_at: datetime


_BALANCE = select(accounts.c.balance).where(accounts.c.id == bindparam("account"))
_CHANGE = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"), accounts.c.balance + bindparam("change") >= 0)
    .values(balance=accounts.c.balance + bindparam("change"))
    .returning(accounts.c.balance)
)
_RECORD = insert(ledger)


def _settlement(kind: Movement, amount: ColumnElement[int]) -> Mapping[str, ReturningInsert[Any]]:
    source = select(
        _HELD.c.account_id,
        _HELD.c.job_id,
        literal(kind.value),
        amount,
        literal(""),
        bindparam("now", type_=UTCDateTime),
    ).where(_HELD.c.job_id == bindparam("job"), _HELD.c.kind == Movement.hold.value)
    names = ("account_id", "job_id", "kind", "amount", "note", "created_at")
    return insert_or_nothing(ledger, ledger.c.account_id, ledger.c.amount, source=(names, source))


_HELD = ledger.alias("held")
_CAPTURE = _settlement(Movement.capture, literal(0))
_RELEASE = _settlement(Movement.release, -_HELD.c.amount)


async def hold(connection: AsyncConnection, account_id: int, job_id: int, price: int) -> int:
    """Take the price off the balance until the job is settled; a price of 0 leaves no trace.

    Returns:
        the new balance.
    Raises:
        InsufficientCredits: the balance does not cover the price; nothing was changed.
    """
    changed = await connection.execute(_CHANGE, {"account": account_id, "change": -price})
    balance = changed.scalar()
    if balance is None:
        covered = (await connection.execute(_BALANCE, {"account": account_id})).scalar()
        raise errors.InsufficientCredits(covered or 0, price)
    if price:
        await _record(connection, account_id, job_id, Movement.hold, -price)
    return balance


async def capture(connection: AsyncConnection, job_id: int) -> None:
    """Keep what the job holds; nothing happens when it was settled before or holds nothing."""
    await connection.execute(_CAPTURE[connection.dialect.name], {"job": job_id, "now": datetime.now(UTC)})


async def release(connection: AsyncConnection, job_id: int) -> int | None:
    """Give back what the job holds; nothing happens when it was settled before or holds nothing.

    Returns:
        the new balance; None when nothing was given back.
    """
    values = {"job": job_id, "now": datetime.now(UTC)}
    released = (await connection.execute(_RELEASE[connection.dialect.name], values)).one_or_none()
    if released is None:
        return None
    change = {"account": released.account_id, "change": released.amount}
    return (await connection.execute(_CHANGE, change)).scalar_one()


class Credits:
    """The balances and the ledger of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, account_id: int, amount: int, note: str = "") -> int:
        """Add millicredits; a negative amount takes them back.

        Returns:
            the new balance.
        Raises:
            NotFound: no such account.
            InsufficientCredits: the balance does not cover what is taken back.
            ValueError: the amount is 0 or beyond `MAX_GRANT`.
        """
        if not 0 < abs(amount) <= MAX_GRANT:
            raise ValueError(f"the amount must be between 0.001 and {MAX_GRANT // 1000} credits")
        async with self._database.transaction() as connection:
            changed = await connection.execute(_CHANGE, {"account": account_id, "change": amount})
            balance = changed.scalar()
            if balance is None:
                covered = (await connection.execute(_BALANCE, {"account": account_id})).scalar()
                raise _no_account() if covered is None else errors.InsufficientCredits(covered, -amount)
            await _record(connection, account_id, None, Movement.grant, amount, note)
        return balance

    async def balance(self, account_id: int) -> int:
        """The millicredits that an account can spend.

        Raises:
            NotFound: no such account.
        """
        async with self._database.reading() as connection:
            balance = (await connection.execute(_BALANCE, {"account": account_id})).scalar()
        if balance is None:
            raise _no_account()
        return balance

    async def ledger(self, account_id: int, *, limit: int | None = None) -> list[LedgerRow]:
        """The movements of an account, oldest first. ``limit``: the number of newest ones to return."""
        newest = select(ledger).where(ledger.c.account_id == account_id)
        newest = newest.order_by(ledger.c.id.desc()).limit(limit)
        async with self._database.reading() as connection:
            rows = (await connection.execute(newest)).all()
        return [
            LedgerRow(
                row.id, row.account_id, row.job_id, Movement(row.kind), row.amount, row.note, row.created_at
            )
            for row in reversed(rows)
        ]


async def _record(
    connection: AsyncConnection,
    account_id: int,
    job_id: int | None,
    kind: Movement,
    amount: int,
    note: str = "",
) -> None:
    await connection.execute(
        _RECORD,
        {
            "account_id": account_id,
            "job_id": job_id,
            "kind": kind.value,
            "amount": amount,
            "note": note,
            "created_at": datetime.now(UTC),
        },
    )


def _no_account() -> errors.NotFound:
    return errors.NotFound("There is no such account")
