"""SQLite connections set up for a server, with one trip to the driver's thread per statement."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

_TRANSIENT_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
    }
)
_WAL_LIMIT_BYTES = 64 * 1024 * 1024


def connector(path: str, busy_timeout_s: float) -> Callable[[], Awaitable[Connection]]:
    """A function that opens the file at ``path``, creating it and its folder when they are not there."""

    def open_file() -> sqlite3.Connection:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # the driver's own transactions are off: the engine says BEGIN IMMEDIATE itself
        opened = sqlite3.connect(
            path,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        _switch_to_wal(opened, time.monotonic() + busy_timeout_s)
        opened.execute("PRAGMA synchronous = NORMAL")
        opened.execute("PRAGMA foreign_keys = ON")
        opened.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        return opened

    async def connect() -> Connection:
        # opened before the driver's thread starts: a failure there would outlive the event loop
        opened = await asyncio.to_thread(open_file)
        connection = Connection(lambda: opened)
        await connection
        return connection

    return connect


def is_transient(error: BaseException | None) -> bool:
    """Whether the file was locked, full or out of reach, rather than the statement wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    # the low byte is the primary code, the rest says more precisely what happened
    return isinstance(code, int) and code & 0xFF in _TRANSIENT_CODES


def _switch_to_wal(opened: sqlite3.Connection, deadline: float) -> None:
    """SQLite does not wait for a lock when it changes the journal, so two first starts need patience here."""
    while True:
        try:
            opened.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if not is_transient(error) or time.monotonic() > deadline:
                opened.close()
                raise
            time.sleep(0.01)


class Connection(aiosqlite.Connection):
    """Runs a statement, fetches its rows and closes its cursor in one trip to the thread.

    The driver makes four trips, each dearer than the statement itself. BEGIN travels with the next statement.
    """

    def __init__(self, open_file: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(open_file, iter_chunk_size=64)
        self._waiting: str | None = None
        self._begun = False
        self._thread.daemon = True  # a forgotten close must not keep the process alive

    def cursor(self) -> _Cursor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Cursor(self)

    async def run(self, work: Callable[..., None], operation: str, parameters: Sequence[Any]) -> None:
        """Call ``work(sqlite3_connection, operation, parameters)`` in the thread."""
        if operation.startswith("BEGIN"):
            self._waiting = operation
            return
        await self._execute(self._begin_and, self._take_waiting(), work, operation, parameters)

    async def commit(self) -> None:
        self._waiting = None
        if self._begun:
            await super().commit()
            self._begun = False

    async def rollback(self) -> None:
        self._waiting = None
        if self._begun:
            await super().rollback()
            self._begun = False

    def _take_waiting(self) -> str | None:
        waiting, self._waiting = self._waiting, None
        # noted before the thread has done it: a caller that is cancelled meanwhile must still roll back
        self._begun = self._begun or waiting is not None
        return waiting

    def _begin_and(
        self, begin: str | None, work: Callable[..., None], operation: str, parameters: Sequence[Any]
    ) -> None:
        if begin is not None:
            self._conn.execute(begin)
        work(self._conn, operation, parameters)


class _Cursor:
    """As much of a cursor as SQLAlchemy asks of an asynchronous driver."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> _Cursor:
        return self

    async def execute(self, operation: str, parameters: Sequence[Any] = ()) -> _Cursor:
        await self._connection.run(self._run, operation, parameters)
        return self

    async def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> _Cursor:
        await self._connection.run(self._run_many, operation, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        self._rows = []

    def _run(self, opened: sqlite3.Connection, operation: str, parameters: Sequence[Any]) -> None:
        self._keep(opened.execute(operation, parameters))

    def _run_many(
        self, opened: sqlite3.Connection, operation: str, parameters: Sequence[Sequence[Any]]
    ) -> None:
        self._keep(opened.executemany(operation, parameters))

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self._rows = cursor.fetchall() if cursor.description else []
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid
        cursor.close()
