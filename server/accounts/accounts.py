"""Accounts and their API keys: who asks, and may they?"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import bindparam, insert, select, update

from server import errors
from server.database.database import Database
from server.database.tables import accounts, api_keys
from server.database.upserts import insert_or_nothing

OPEN_ACCOUNT = "open"
"""The name of the account behind ``UNDERSTUDY_AUTH=open``."""

_KEY_START = "us-"
_KEY_BYTES = 32
_PREFIX_CHARACTERS = len(_KEY_START) + 8

SHORTEST_KEY, LONGEST_KEY = 16, 512
"""The fewest and the most characters of a key that is brought along: fewer can be guessed."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account that is charged. ``balance``: millicredits, as they were when this was read."""

    id: int
    name: str
    is_administrator: bool
    balance: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key as it is listed. ``prefix``: its first characters; ``revoked_at``: None if it is valid."""

    id: int
    account: str
    is_administrator: bool
    prefix: str
    label: str
    created_at: datetime
    revoked_at: datetime | None


class AccountExists(ValueError):
    """The name of the new account is taken."""


class MalformedKey(ValueError):
    """A text cannot be an API key; the message does not repeat it."""


class KeyExists(ValueError):
    """A key that was brought along is known already."""


class AmbiguousKey(ValueError):
    """Several keys begin with the text given."""


_FIELDS = (accounts.c.id, accounts.c.name, accounts.c.is_administrator, accounts.c.balance)
_BY_NAME = select(*_FIELDS).where(accounts.c.name == bindparam("name"))
_BY_KEY = (
    select(*_FIELDS)
    .join(api_keys, api_keys.c.account_id == accounts.c.id)
    .where(api_keys.c.sha256 == bindparam("sha256"), api_keys.c.revoked_at.is_(None))
)
_OWNER = (
    select(accounts.c.name, api_keys.c.revoked_at)
    .join(accounts, api_keys.c.account_id == accounts.c.id)
    .where(api_keys.c.sha256 == bindparam("sha256"))
)
_CREATE = insert_or_nothing(accounts, accounts.c.id)
_KEYS = (
    select(
        api_keys.c.id,
        accounts.c.name,
        accounts.c.is_administrator,
        api_keys.c.prefix,
        api_keys.c.label,
        api_keys.c.created_at,
        api_keys.c.revoked_at,
    )
    .join(accounts, api_keys.c.account_id == accounts.c.id)
    .order_by(api_keys.c.id)
)


class Accounts:
    """The accounts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, *, is_administrator: bool = False) -> Account:
        """Create an account without credits.

        Raises:
            AccountExists: the name is taken.
        """
        values = {
            "name": name,
            "is_administrator": is_administrator,
            "balance": 0,
            "created_at": datetime.now(UTC),
        }
        async with self._database.transaction() as connection:
            account_id = (await connection.execute(_CREATE[connection.dialect.name], values)).scalar()
        if account_id is None:
            raise AccountExists(f"there is an account {name!r} already")
        return Account(account_id, name, is_administrator, 0)

    async def find(self, name: str) -> Account | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(_BY_NAME, {"name": name})).one_or_none()
        return None if row is None else Account(*row)

    async def all(self) -> list[Account]:
        """All accounts, in the order of their names."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(*_FIELDS).order_by(accounts.c.name))
        return [Account(*row) for row in rows]

    async def create_key(self, account_id: int, label: str = "") -> str:
        """Create a key of 256 random bits and return it. Only its SHA-256 is kept: nobody sees it again."""
        api_key = _KEY_START + secrets.token_urlsafe(_KEY_BYTES)
        await self._add_key(account_id, api_key, api_key[:_PREFIX_CHARACTERS], label)
        return api_key

    async def import_key(self, account_id: int, api_key: str, label: str = "") -> None:
        """Make a key known that clients have already. Only its SHA-256 is kept.

        Raises:
            MalformedKey: see `check_key`.
            KeyExists: it is known already, or was and is revoked.
        """
        check_key(api_key)
        await self.refuse_known_key(api_key)
        # What is listed must not give away much of a short key.
        await self._add_key(account_id, api_key, api_key[: min(_PREFIX_CHARACTERS, len(api_key) // 4)], label)

    async def refuse_known_key(self, api_key: str) -> None:
        """Look whether a key can be brought along.

        Raises:
            KeyExists: it is known already, or was and is revoked.
        """
        async with self._database.reading() as connection:
            found = (await connection.execute(_OWNER, {"sha256": _digest(api_key)})).one_or_none()
        if found is not None:
            state = "" if found.revoked_at is None else ", and was revoked"
            raise KeyExists(f"this key exists already: it belongs to the account {found.name}{state}")

    async def _add_key(self, account_id: int, api_key: str, prefix: str, label: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                insert(api_keys),
                {
                    "account_id": account_id,
                    "sha256": _digest(api_key),
                    "prefix": prefix,
                    "label": label,
                    "created_at": datetime.now(UTC),
                },
            )

    async def keys(self) -> list[KeyRow]:
        """Every API key, oldest first; revoked ones are among them."""
        async with self._database.reading() as connection:
            return [KeyRow(*row) for row in await connection.execute(_KEYS)]

    async def revoke_key(self, prefix_or_id: str | int) -> None:
        """Make a key unknown from now on; one that is revoked already stays so.

        Args:
            prefix_or_id: the prefix or the id that `keys` shows, or the whole key.
        Raises:
            NotFound: no such key.
            AmbiguousKey: the prefix is that of several keys.
        """
        text = str(prefix_or_id)
        if text.isascii() and text.isdigit():
            matches = api_keys.c.id == min(int(text), 2**63 - 1)
        else:
            matches = (api_keys.c.prefix == text) | (api_keys.c.sha256 == _digest(text))
        async with self._database.transaction() as connection:
            ids = (await connection.execute(select(api_keys.c.id).where(matches))).scalars().all()
            if not ids:
                raise errors.NotFound(f"There is no API key {text}")
            if len(ids) > 1:
                raise AmbiguousKey(f"several API keys begin with {text}; name one by its id")
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == ids[0], api_keys.c.revoked_at.is_(None))
                .values(revoked_at=datetime.now(UTC))
            )

    async def authenticate(self, api_key: str) -> Account:
        """The account that an API key belongs to.

        Raises:
            InvalidKey: unknown or revoked.
        """
        async with self._database.reading() as connection:
            row = (await connection.execute(_BY_KEY, {"sha256": _digest(api_key)})).one_or_none()
        if row is None:
            raise errors.InvalidKey
        return Account(*row)

    async def open_account(self) -> Account:
        """The one account of open mode, created on first use; it is no administrator's."""
        account = await self.find(OPEN_ACCOUNT)
        while account is None:
            try:
                account = await self.create(OPEN_ACCOUNT)
            except AccountExists:
                account = await self.find(OPEN_ACCOUNT)
        return account


def check_key(api_key: str) -> None:
    """Look whether a text can be an API key that clients send in headers, forms and JSON.

    Raises:
        MalformedKey
    """
    if not api_key:
        raise MalformedKey("there is no key on standard input")
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise MalformedKey("a key is one word of ASCII letters, digits and signs, without blanks in it")
    if not SHORTEST_KEY <= len(api_key) <= LONGEST_KEY:
        raise MalformedKey(f"a key has {SHORTEST_KEY} to {LONGEST_KEY} characters, this one {len(api_key)}")


def _digest(api_key: str) -> str:
    # a caller's JSON may hold text that is no Unicode; it is still just an unknown key
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()
