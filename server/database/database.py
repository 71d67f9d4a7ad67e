"""The database of accounts, keys, credits and jobs: SQLite unless a URL names PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from server import errors
from server.database import sqlite
from server.database.errors import UnusableDatabase
from server.database.server_lock import hold_file, hold_session
from server.database.writers import Writers
from server.settings import Settings

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}
_CONNECT_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 0x756E64657273
_MIGRATION_WAIT = "60s"
_TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "53400"})
"""The SQLSTATEs that pass: serialization, deadlock, lock time-out, shutdown, crash, start, full."""


def database_url(settings: Settings) -> str:
    """The configured URL, or the one of the SQLite file in the data folder."""
    if settings.database_url is not None:
        return settings.database_url
    url = URL.create(_DRIVERS["sqlite"], database=str(settings.data / "understudy.db"))
    return url.render_as_string(hide_password=False)


class Database:
    """One database, its pool of connections, and short transactions on it.

    On SQLite the writers of this process take turns before they ask for the file's only write lock, so that
    the lock is only ever waited for when another process holds it.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        """Prepare the pools of connections; nothing is connected yet.

        Args:
            busy_timeout_s: how long a statement may wait for a lock before `errors.Unavailable`.
        Raises:
            UnusableDatabase: the URL is none, or of a database that is neither SQLite nor PostgreSQL.
        """
        parsed = _parse(url)
        self.url = parsed.render_as_string(hide_password=False)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = _sqlite_engine(parsed, busy_timeout_s, writes=True)
            self._reader = _sqlite_engine(parsed, busy_timeout_s, writes=False)
        else:
            self.engine = _postgresql_engine(parsed, busy_timeout_s)
            self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writers = Writers(1 if self.is_sqlite else None, wait_s=busy_timeout_s)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """One short write transaction: committed at the end, rolled back on any error.

        Raises:
            Unavailable: the database is locked by another process or cannot be reached; nothing was written.
        """
        with _RaisesUnavailable() as guard:
            async with self._writers.turn(), self.engine.begin() as connection:
                guard.connected = True
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for statements that only read, each on its own; never waits for a writer.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with _RaisesUnavailable() as guard:
            async with self._reader.connect() as connection:
                guard.connected = True
                yield connection

    @asynccontextmanager
    async def hold_server_lock(self) -> AsyncGenerator[None]:
        """Hold the right to be the one server of this database; reading and writing need no such right.

        On PostgreSQL the right ends with a connection of its own, even when that breaks.

        Raises:
            UnusableDatabase: another server holds it.
            Unavailable: it cannot be reached.
        """
        if self.is_sqlite:
            with hold_file(Path(str(self.engine.url.database))):
                yield
            return
        with _RaisesUnavailable():
            connection = await self._reader.connect()
            try:
                await hold_session(connection)
            except BaseException:
                await connection.close()
                raise
        try:
            yield
        finally:
            await connection.invalidate()  # the lock is the session's, and would come back with it
            await connection.close()

    async def migrate(self) -> None:
        """Bring the tables to this version; processes that start at once do so one after the other.

        Raises:
            UnusableDatabase: a newer version wrote it.
            Unavailable: it cannot be reached.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)  # before its import, which is talkative
        from server.database.migrations.upgrades import upgrade

        async with self.transaction() as connection:
            # whoever comes second waits here, before Alembic, which is one per process and no place to wait
            if self.is_sqlite:
                await connection.execute(text("SELECT 1"))
            else:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_WAIT}'"))
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            await connection.run_sync(upgrade)

    async def revisions(self) -> tuple[str | None, str]:
        """The revision of the tables, None where there are none, and the newest that this version knows.

        Raises:
            Unavailable: it cannot be reached.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from server.database.migrations.upgrades import current_revision, newest_revision

        async with self.reading() as connection:
            return await connection.run_sync(current_revision), newest_revision()

    async def close(self) -> None:
        """Close every connection; the database may be used again afterwards."""
        await self._reader.dispose()
        await self.engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UnusableDatabase(
            "the database URL cannot be read; expected postgresql://user@host/name"
        ) from None
    driver = _DRIVERS.get(parsed.drivername.partition("+")[0])
    if driver is None:
        raise UnusableDatabase(
            f"{parsed.drivername} is not a known database; allowed are sqlite and postgresql"
        )
    if driver == _DRIVERS["sqlite"] and (not parsed.database or parsed.database.startswith((":", "file:"))):
        raise UnusableDatabase("a SQLite database needs a file: sqlite:///path/to/understudy.db")
    return parsed.set(drivername=driver)


def _sqlite_engine(url: URL, busy_timeout_s: float, *, writes: bool) -> AsyncEngine:
    return create_async_engine(
        url,
        async_creator=sqlite.connector(str(url.database), busy_timeout_s, writes=writes),
        pool_size=1 if writes else 4,
        max_overflow=0 if writes else 8,
        pool_timeout=busy_timeout_s,
        pool_use_lifo=True,
        pool_reset_on_return=None,  # every transaction has ended by then, and readers have none
    )


def _postgresql_engine(url: URL, busy_timeout_s: float) -> AsyncEngine:
    milliseconds = str(max(1, round(busy_timeout_s * 1000)))
    return create_async_engine(
        url,
        pool_size=10,
        max_overflow=10,
        pool_timeout=busy_timeout_s,
        pool_use_lifo=True,
        connect_args={
            "timeout": _CONNECT_TIMEOUT_S,
            "server_settings": {"lock_timeout": milliseconds, "application_name": "understudy"},
        },
    )


class _RaisesUnavailable:
    """A context in which what the operator has to wait for or repair becomes `Unavailable`."""

    def __init__(self) -> None:
        self.connected = False

    def __enter__(self) -> _RaisesUnavailable:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case PoolExhausted():
                raise errors.Unavailable("The database is busy, try again shortly") from error
            case DBAPIError() if _is_transient(error):
                text = "The database is busy or cannot be reached, try again shortly"
                raise errors.Unavailable(text) from error
            case ConnectionError():
                raise errors.Unavailable("The database cannot be reached, try again shortly") from error
            case OSError() if not self.connected:  # later it is one of whoever uses the connection
                raise errors.Unavailable("The database cannot be reached, try again shortly") from error
            case _:
                pass


def _is_transient(error: DBAPIError) -> bool:
    if error.connection_invalidated or sqlite.is_transient(error.orig):
        return True
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(state, str) and (state in _TRANSIENT_STATES or state.startswith("08"))
