"""One database behind two drivers: migrations, transactions, locks."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from server import errors
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.database.migrations.upgrades import configuration
from server.database.tables import accounts, jobs, metadata
from server.jobs.jobs import Jobs
from server.settings import Settings
from tests.builders import new_order

pytestmark = pytest.mark.anyio


def _differences(connection: Connection) -> object:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return compare_metadata(context, metadata)


async def test_the_migrations_lead_to_the_tables_that_the_code_works_with(own_database: Database) -> None:
    async with own_database.reading() as connection:
        assert await connection.run_sync(_differences) == []


async def test_a_difference_between_migrations_and_tables_would_be_seen(own_database: Database) -> None:
    async with own_database.transaction() as connection:
        await connection.execute(text("ALTER TABLE ledger ADD COLUMN surplus INTEGER"))
    async with own_database.reading() as connection:
        assert await connection.run_sync(_differences) != []


async def test_migrating_again_keeps_what_is_there(database: Database) -> None:
    account = await Accounts(database).create("ada")
    await database.migrate()
    assert await Accounts(database).find("ada") == account


async def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    starting = [Database(empty_url, busy_timeout_s=30) for _ in range(6)]
    await asyncio.gather(*(database.migrate() for database in starting))
    async with starting[0].reading() as connection:
        assert await connection.run_sync(_differences) == []
    await Accounts(starting[0]).create("ada")
    assert await Accounts(starting[5]).find("ada") is not None
    await asyncio.gather(*(database.close() for database in starting))


async def test_migrations_can_be_undone_and_done_again(own_database: Database) -> None:
    def undo(connection: Connection) -> list[str]:
        command.downgrade(configuration(connection), "base")
        return inspect(connection).get_table_names()

    async with own_database.transaction() as connection:
        assert set(await connection.run_sync(undo)) <= {"alembic_version"}
    await own_database.migrate()
    async with own_database.reading() as connection:
        assert await connection.run_sync(_differences) == []


async def test_a_database_has_one_server_and_anybody_else_may_work_in_it(
    database: Database, second: Database
) -> None:
    async with database.hold_server_lock():
        for _ in range(2):
            with pytest.raises(UnusableDatabase, match="Another server runs on this database"):
                async with second.hold_server_lock():
                    raise AssertionError("there are two servers")
        await second.migrate()
        account = await Accounts(second).create("ada")
        assert await Accounts(database).find("ada") == account
    async with second.hold_server_lock():
        with pytest.raises(UnusableDatabase):
            async with database.hold_server_lock():
                raise AssertionError("there are two servers")
    async with database.hold_server_lock():
        pass


def be_server(url: str, ready: Pipe[None, None]) -> None:
    async def hold() -> None:
        async with Database(url).hold_server_lock():
            ready.send(None)
            await asyncio.Event().wait()

    asyncio.run(hold())


def test_a_killed_server_leaves_the_database_to_the_next_one(empty_url: str) -> None:
    async def become() -> None:
        database = Database(empty_url)
        try:
            async with database.hold_server_lock():
                pass
        finally:
            await database.close()

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=be_server, args=(empty_url, there))
    process.start()
    assert here.poll(60)
    with pytest.raises(UnusableDatabase):
        asyncio.run(become())
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while True:  # PostgreSQL sees that the connection has ended a moment later
        try:
            asyncio.run(become())
            break
        except UnusableDatabase:
            assert time.monotonic() < deadline


async def test_a_database_of_a_newer_version_is_refused_in_words(own_database: Database) -> None:
    async with own_database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UnusableDatabase, match="newer version"):
        await own_database.migrate()


async def test_an_error_inside_a_transaction_undoes_it(database: Database) -> None:
    account = await Accounts(database).create("ada")

    async def rename_and_fail() -> None:
        async with database.transaction() as connection:
            await connection.execute(update(accounts).values(name="bob"))
            raise errors.NotFound("stop here")

    with pytest.raises(errors.NotFound, match="stop here"):
        await rename_and_fail()
    assert await Accounts(database).find("ada") == account


async def test_a_time_limit_inside_a_transaction_is_not_taken_for_a_lost_database(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.transaction(), asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_transaction_cancelled_halfway_leaves_no_lock_behind(database: Database) -> None:
    await Accounts(database).create("ada")
    renamed = asyncio.Event()

    async def rename_and_wait() -> None:
        async with database.transaction() as connection:
            await connection.execute(update(accounts).values(name="bob"))
            renamed.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(rename_and_wait())
    await renamed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await Accounts(database).create("bob")
    assert [account.name for account in await Accounts(database).all()] == ["ada", "bob"]


async def test_a_transaction_cancelled_at_any_moment_leaves_no_lock_behind(database: Database) -> None:
    await Accounts(database).create("ada")
    for turns_of_the_loop in range(40):
        task = asyncio.create_task(Accounts(database).create("bob"))
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with database.transaction() as connection:
            await connection.execute(accounts.delete().where(accounts.c.name == "bob"))
    assert [account.name for account in await Accounts(database).all()] == ["ada"]


async def test_a_reader_does_not_wait_for_a_writer(database: Database, impatient: Database) -> None:
    await Accounts(database).create("ada")
    async with database.transaction() as connection:
        await connection.execute(update(accounts).values(name="bob"))
        assert await Accounts(impatient).find("ada") is not None
    assert await Accounts(impatient).find("bob") is not None


async def test_a_writer_does_not_wait_for_a_reader_of_the_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'understudy.db'}", busy_timeout_s=0.05)
    await database.migrate()
    with closing(sqlite3.connect(tmp_path / "understudy.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM accounts").fetchone() == (0,)
        await Accounts(database).create("ada")
        assert reader.execute("SELECT count(*) FROM accounts").fetchone() == (0,)
    await database.close()


async def test_a_database_locked_by_another_process_is_unavailable_and_nothing_is_charged(
    database: Database, impatient: Database
) -> None:
    account = await Accounts(database).create("ada")
    await Credits(database).grant(account.id, 100)
    async with database.transaction() as lock:
        await lock.execute(update(accounts).values(is_administrator=True))
        with pytest.raises(errors.Unavailable, match="database is busy"):
            await Jobs(impatient).open(account.id, new_order())
    assert await Credits(database).balance(account.id) == 100
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(jobs))).scalar_one() == 0
    job, _ = await Jobs(impatient).open(account.id, new_order())
    assert job.balance == 90


async def test_callers_behind_a_locked_database_do_not_wait_one_after_the_other(
    database: Database, impatient: Database
) -> None:
    account = await Accounts(database).create("ada")
    await Credits(database).grant(account.id, 1000)
    async with database.transaction() as lock, asyncio.timeout(3):
        await lock.execute(update(accounts).values(is_administrator=True))
        opening = (Jobs(impatient).open(account.id, new_order()) for _ in range(100))
        outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert all(isinstance(outcome, errors.Unavailable) for outcome in outcomes)
    assert await Credits(database).balance(account.id) == 1000


async def test_the_database_itself_refuses_a_negative_balance(database: Database) -> None:
    await Accounts(database).create("ada")

    async def overdraw() -> None:
        async with database.transaction() as connection:
            await connection.execute(update(accounts).values(balance=-1))

    with pytest.raises(IntegrityError):
        await overdraw()


async def test_the_database_itself_refuses_a_key_without_an_account(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await Accounts(database).create_key(4711)


async def test_times_come_back_in_utc(database: Database) -> None:
    written = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=timezone(timedelta(hours=5)))
    row = {"is_administrator": False, "balance": 0, "created_at": written}
    async with database.transaction() as connection:
        await connection.execute(insert(accounts), [row | {"name": "ada"}, row | {"name": "bob"}])
    async with database.reading() as connection:
        times = (await connection.execute(select(accounts.c.created_at))).scalars().all()
    assert times == [written, written]
    assert {time.utcoffset() for time in times} == {timedelta()}


async def test_a_postgresql_that_is_not_there_is_unavailable() -> None:
    nowhere = Database("postgresql://127.0.0.1:1/understudy")
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        await nowhere.migrate()


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    nowhere = Database(f"sqlite:///{tmp_path / 'file' / 'understudy.db'}")
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        await nowhere.migrate()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root@localhost/understudy", "mysql is not a known database"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("no url", "cannot be read"),
    ],
)
def test_a_url_of_something_else_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(UnusableDatabase, match=words):
        Database(url)


def test_the_default_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    folder = tmp_path / "100% data? #1"
    url = database_url(Settings(data=folder))
    assert Database(url).engine.url.database == str(folder / "understudy.db")


def test_the_configured_url_is_taken_as_it_is() -> None:
    url = "postgresql://ada:secret@db/understudy"
    assert database_url(Settings(database_url=url)) == url
    assert Database(url).url == "postgresql+asyncpg://ada:secret@db/understudy"
