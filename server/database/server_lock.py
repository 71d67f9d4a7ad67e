"""The right to be the one server of a database. Its process holds it, so a killed one has lost it at once."""

# Why: server/decisions/0005.

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from server.database.errors import UnusableDatabase

_SESSION_LOCK = 0x736572766572


class _Taken(UnusableDatabase):
    def __init__(self, where: str) -> None:
        super().__init__(
            f"Another server runs on this database ({where}). Only one may: a second one would take over its"
            " jobs. Stop it first, or set UNDERSTUDY_DATA or UNDERSTUDY_DATABASE_URL to something else."
        )


@contextmanager
def hold_file(database: Path) -> Generator[None]:
    """Lock a file beside SQLite's; the lock goes with the process, the file stays.

    Raises:
        UnusableDatabase: another process holds it.
    """
    beside = database.with_name(f"{database.name}-server")
    beside.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Taken(str(database)) from None
        yield


async def hold_session(connection: AsyncConnection) -> None:
    """Lock PostgreSQL's database for as long as this connection lasts.

    Raises:
        UnusableDatabase: another session holds it.
    """
    free = await connection.execute(text(f"SELECT pg_try_advisory_lock({_SESSION_LOCK})"))
    if not free.scalar_one():
        raise _Taken(f"{connection.engine.url.database} on {connection.engine.url.host}")
