"""Accounts and keys: who may ask."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from server import errors
from server.accounts.accounts import AccountExists, Accounts, AmbiguousKey
from server.accounts.credits import Credits
from server.database.database import Database
from server.database.tables import api_keys

pytestmark = pytest.mark.anyio


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


async def test_a_key_opens_its_account(database: Database, accounts: Accounts) -> None:
    ada = await accounts.create("ada", is_administrator=True)
    bob = await accounts.create("bob")
    of_ada, of_bob = await accounts.create_key(ada.id), await accounts.create_key(bob.id)
    await Credits(database).grant(bob.id, 12_345)
    assert await accounts.authenticate(of_ada) == ada
    known = await accounts.authenticate(of_bob)
    assert (known.name, known.is_administrator, known.balance) == ("bob", False, 12_345)


async def test_only_the_hash_of_a_key_is_stored(database: Database, accounts: Accounts) -> None:
    ada = await accounts.create("ada")
    api_key = await accounts.create_key(ada.id, "laptop")
    assert len(api_key) >= 43, "256 bits do not fit"
    async with database.reading() as connection:
        row = (await connection.execute(select(api_keys))).one()
    assert row.sha256 == hashlib.sha256(api_key.encode()).hexdigest()
    assert api_key not in [str(value) for value in row]
    assert api_key.startswith(row.prefix)
    assert len(row.prefix) < 12


@pytest.mark.parametrize("api_key", ["", "us-", "x" * 10**6, "\0", "\ud800", "' OR 1=1 --"])
async def test_an_unknown_key_is_invalid(accounts: Accounts, api_key: str) -> None:
    ada = await accounts.create("ada")
    await accounts.create_key(ada.id)
    with pytest.raises(errors.InvalidKey):
        await accounts.authenticate(api_key)


@pytest.mark.parametrize("named_by", ["prefix", "id", "number", "key"])
async def test_a_revoked_key_is_invalid_and_the_others_stay_valid(accounts: Accounts, named_by: str) -> None:
    ada = await accounts.create("ada")
    revoked, kept = await accounts.create_key(ada.id), await accounts.create_key(ada.id)
    row = (await accounts.keys())[0]
    names = {"prefix": row.prefix, "id": row.id, "number": str(row.id), "key": revoked}
    await accounts.revoke_key(names[named_by])
    with pytest.raises(errors.InvalidKey):
        await accounts.authenticate(revoked)
    assert await accounts.authenticate(kept) == ada


async def test_revoking_twice_keeps_the_first_moment(accounts: Accounts) -> None:
    ada = await accounts.create("ada")
    await accounts.create_key(ada.id, "laptop")
    row = (await accounts.keys())[0]
    assert row.revoked_at is None
    await accounts.revoke_key(row.prefix)
    first = (await accounts.keys())[0].revoked_at
    await accounts.revoke_key(row.prefix)
    assert first is not None
    assert (await accounts.keys())[0].revoked_at == first
    assert timedelta() <= datetime.now(UTC) - first < timedelta(minutes=1)


@pytest.mark.parametrize("named", ["us-nothing", "", "4711", "9" * 30, "us-"])
async def test_a_key_that_is_not_there_cannot_be_revoked(accounts: Accounts, named: str) -> None:
    ada = await accounts.create("ada")
    api_key = await accounts.create_key(ada.id)
    with pytest.raises(errors.NotFound):
        await accounts.revoke_key(named)
    assert await accounts.authenticate(api_key) == ada


async def test_a_prefix_of_two_keys_revokes_neither(database: Database, accounts: Accounts) -> None:
    ada = await accounts.create("ada")
    made = [await accounts.create_key(ada.id), await accounts.create_key(ada.id)]
    async with database.transaction() as connection:
        await connection.execute(api_keys.update().values(prefix="us-the-same"))
    with pytest.raises(AmbiguousKey, match="its id"):
        await accounts.revoke_key("us-the-same")
    for api_key in made:
        assert await accounts.authenticate(api_key) == ada


async def test_a_name_is_given_once(accounts: Accounts) -> None:
    await accounts.create("ada")
    with pytest.raises(AccountExists, match="ada"):
        await accounts.create("ada")
    outcomes = await asyncio.gather(*(accounts.create("bob") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, AccountExists) for outcome in outcomes) == 4


async def test_open_mode_has_one_account_whoever_asks_first(database: Database, second: Database) -> None:
    asking = [Accounts(database), Accounts(second)]
    found = await asyncio.gather(*(asking[number % 2].open_account() for number in range(10)))
    assert len(set(found)) == 1
    assert (found[0].balance, found[0].is_administrator) == (0, False)
    assert len(await Accounts(database).all()) == 1
