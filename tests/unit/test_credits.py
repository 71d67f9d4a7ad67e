"""Hold, capture, release: what each does to the balance and to the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server import errors
from server.accounts import credits
from server.accounts.accounts import Accounts
from server.accounts.credits import MAX_GRANT, Credits, Movement
from server.database.database import Database

pytestmark = pytest.mark.anyio

JOB = 7


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'understudy.db'}")
    await database.migrate()
    yield database
    await database.close()


@pytest.fixture
async def ada(database: Database) -> int:
    """The id of an account with 100 millicredits."""
    account = await Accounts(database).create("ada")
    await Credits(database).grant(account.id, 100, "welcome")
    return account.id


async def _movements(database: Database, account_id: int) -> list[tuple[Movement, int]]:
    return [(row.kind, row.amount) for row in await Credits(database).ledger(account_id)]


async def test_a_held_price_cannot_be_spent_again(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        assert await credits.hold(connection, ada, JOB, 60) == 40
        with pytest.raises(errors.InsufficientCredits) as refusal:
            await credits.hold(connection, ada, JOB + 1, 41)
        assert (refusal.value.balance, refusal.value.required) == (40, 41)
        assert await credits.hold(connection, ada, JOB + 1, 40) == 0
    assert await _movements(database, ada) == [
        (Movement.grant, 100),
        (Movement.hold, -60),
        (Movement.hold, -40),
    ]


async def test_a_capture_leaves_the_balance_as_the_hold_made_it(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        await credits.hold(connection, ada, JOB, 60)
        await credits.capture(connection, JOB)
    assert await Credits(database).balance(ada) == 40
    assert (await _movements(database, ada))[-1] == (Movement.capture, 0)


async def test_a_released_hold_can_be_released_again(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        await credits.hold(connection, ada, JOB, 60)
        assert await credits.release(connection, JOB) == 100
        assert await credits.release(connection, JOB) is None
    assert await Credits(database).balance(ada) == 100
    assert (await _movements(database, ada))[1:] == [(Movement.hold, -60), (Movement.release, 60)]


async def test_a_capture_after_a_release_does_nothing(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        await credits.hold(connection, ada, JOB, 60)
        await credits.release(connection, JOB)
        await credits.capture(connection, JOB)
    assert (await _movements(database, ada))[1:] == [(Movement.hold, -60), (Movement.release, 60)]


async def test_a_release_after_a_capture_does_nothing(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        await credits.hold(connection, ada, JOB, 60)
        await credits.capture(connection, JOB)
        assert await credits.release(connection, JOB) is None
    assert await Credits(database).balance(ada) == 40


async def test_settling_a_job_that_holds_nothing_does_nothing(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        assert await credits.hold(connection, ada, JOB, 0) == 100
        await credits.capture(connection, JOB)
        assert await credits.release(connection, JOB) is None
        assert await credits.release(connection, JOB + 1) is None
    assert await _movements(database, ada) == [(Movement.grant, 100)]


async def test_settling_one_job_leaves_the_hold_of_another(database: Database, ada: int) -> None:
    async with database.transaction() as connection:
        await credits.hold(connection, ada, JOB, 60)
        await credits.hold(connection, ada, JOB + 1, 30)
        assert await credits.release(connection, JOB) == 70
        assert await credits.release(connection, JOB + 1) == 100


async def test_credits_can_be_taken_back_as_far_as_they_are_there(database: Database, ada: int) -> None:
    assert await Credits(database).grant(ada, -100) == 0
    with pytest.raises(errors.InsufficientCredits):
        await Credits(database).grant(ada, -1)
    assert await _movements(database, ada) == [(Movement.grant, 100), (Movement.grant, -100)]


@pytest.mark.parametrize("amount", [0, MAX_GRANT + 1, -MAX_GRANT - 1])
async def test_a_grant_beyond_reason_is_refused(database: Database, ada: int, amount: int) -> None:
    with pytest.raises(ValueError, match="credits"):
        await Credits(database).grant(ada, amount)
    assert await Credits(database).balance(ada) == 100


async def test_an_unknown_account_has_no_credits(database: Database) -> None:
    with pytest.raises(errors.NotFound, match="no such account"):
        await Credits(database).grant(4711, 1)
    with pytest.raises(errors.NotFound, match="no such account"):
        await Credits(database).balance(4711)


async def test_the_ledger_can_be_cut_to_its_newest_rows(database: Database, ada: int) -> None:
    for amount in (1, 2, 3):
        await Credits(database).grant(ada, amount, f"number {amount}")
    rows = await Credits(database).ledger(ada, limit=2)
    assert [(row.amount, row.note, row.job_id) for row in rows] == [
        (2, "number 2", None),
        (3, "number 3", None),
    ]
