"""SQLite connections set up for a server: short statements run on the event loop, the others in a thread."""

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
_LOCKED_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_SHORT_BYTES = 16_384


def connector(path: str, busy_timeout_s: float, *, writes: bool) -> Callable[[], Awaitable[Connection]]:
    """A function that opens the file at ``path``, creating it and its folder when they are not there.

    Args:
        busy_timeout_s: how long a statement waits for another process's lock.
        writes: take the write lock with the first statement of every transaction: one that begins by reading
            can lose it later. Otherwise each statement is a transaction of its own.
    """

    def open_file() -> sqlite3.Connection:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # the driver's own transactions are off
        opened = sqlite3.connect(
            path,
            timeout=0,
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
        connection = Connection(lambda: opened, busy_timeout_s, writes=writes)
        await connection
        return connection

    return connect


def is_transient(error: BaseException | None) -> bool:
    """Whether the file was locked, full or out of reach, rather than the statement wrong."""
    return _primary_code(error) in _TRANSIENT_CODES


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return _primary_code(error) in _LOCKED_CODES


def _primary_code(error: BaseException | None) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    # the low byte is the primary code, the rest says more precisely what happened
    return code & 0xFF if isinstance(code, int) else None


def _switch_to_wal(opened: sqlite3.Connection, deadline: float) -> None:
    """Switch to the write-ahead log; two first starts wait here, for SQLite waits for no lock meanwhile."""
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
    """A connection that runs short statements on the event loop: execute, fetch all rows, close the cursor.

    A statement by key takes some 20 microseconds, each of the driver's four trips to its thread many times
    that. What may take long still goes there, in one trip: waiting for another process's lock, parameters of
    many bytes, a commit that may have to wait for the disk.
    """

    def __init__(
        self, open_file: Callable[[], sqlite3.Connection], busy_timeout_s: float, *, writes: bool
    ) -> None:
        """
        Args:
            open_file: opens the database with a busy timeout of 0, since the event loop must not wait.
            busy_timeout_s, writes: see `connector`.
        """
        super().__init__(open_file, iter_chunk_size=64)
        self._busy_timeout_s = busy_timeout_s
        self._writes = writes
        self._begun = False
        self._thread.daemon = True  # a forgotten close must not keep the process alive

    def cursor(self) -> _Cursor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Cursor(self)

    async def run(self, work: Callable[..., None], operation: str, parameters: Sequence[Any]) -> None:
        """Call ``work(sqlite3_connection, operation, parameters)``."""
        self._begun = self._writes  # noted before it is so: a caller that is cancelled must still roll back
        if not any(isinstance(value, bytes) and len(value) > _SHORT_BYTES for value in parameters):
            try:
                self._begin_and(work, operation, parameters)
                return
            except sqlite3.OperationalError as error:
                if not _is_locked(error):
                    raise
        execute: Any = self._execute  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        await execute(self._run_waiting, work, operation, parameters)

    async def commit(self) -> None:
        if self._begun:
            await super().commit()
            self._begun = False

    async def rollback(self) -> None:
        if self._begun:
            await super().rollback()  # in the thread: a statement may still be running there
            self._begun = False

    def _run_waiting(self, work: Callable[..., None], operation: str, parameters: Sequence[Any]) -> None:
        """Run the statement in the driver's thread, where it may wait for another process's lock."""
        self._conn.execute(f"PRAGMA busy_timeout = {round(self._busy_timeout_s * 1000)}")
        try:
            self._begin_and(work, operation, parameters)
        finally:
            self._conn.execute("PRAGMA busy_timeout = 0")

    def _begin_and(self, work: Callable[..., None], operation: str, parameters: Sequence[Any]) -> None:
        if self._writes and not self._conn.in_transaction:
            self._conn.execute("BEGIN IMMEDIATE")
        work(self._conn, operation, parameters)


class _Cursor:
    """The part of a cursor that SQLAlchemy asks of an asynchronous driver."""

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
