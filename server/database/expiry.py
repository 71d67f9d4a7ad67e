"""Removal of rows whose time is over, a few at a time, so that nobody waits long for a lock."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, delete, select

from server.database.database import Database

EXPIRED_AT_ONCE = 200
"""The most expired rows that one transaction deletes."""


async def delete_expired(database: Database, table: Table, expired: ColumnElement[bool]) -> int:
    """Delete the rows of a table that has a column ``id``, in as many transactions as it takes.

    Returns:
        how many were deleted.
    """
    some = select(table.c.id).where(expired).limit(EXPIRED_AT_ONCE)
    deleted = 0
    while True:
        async with database.transaction() as connection:
            gone = await connection.execute(delete(table).where(table.c.id.in_(some)))
        deleted += gone.rowcount
        if gone.rowcount < EXPIRED_AT_ONCE:
            return deleted
