"""A command's session on the database: open it, bring it up to date, say plainly what is wrong."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation

from server import errors
from server.accounts.accounts import Account, Accounts
from server.accounts.credits import MAX_GRANT
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.settings import Settings


def run(work: Callable[[Database], Awaitable[None]]) -> None:
    """Do ``work`` on the configured database, which may be in use by a running server.

    Raises:
        CommandFailed: the settings, the database or the request are not as they should be.
    """
    settings = read_settings()
    check_data_folder(settings)
    try:
        asyncio.run(_run(settings, work))
    except (errors.ApiError, UnusableDatabase, ValueError) as error:
        raise CommandFailed(str(error)) from error


def check_data_folder(settings: Settings) -> None:
    """Make the data folder where there is none yet.

    Raises:
        CommandFailed: it cannot be made, or nothing can be written into it.
    """
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        if not os.access(settings.data, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise CommandFailed(
            f"The data folder cannot be reached: {settings.data}: {error.strerror} (UNDERSTUDY_DATA)"
        ) from error


async def _run(settings: Settings, work: Callable[[Database], Awaitable[None]]) -> None:
    database = Database(database_url(settings))
    try:
        await database.migrate()
        await work(database)
    finally:
        await database.close()


async def find_account(accounts: Accounts, name: str) -> Account:
    """The account of this name.

    Raises:
        NotFound: there is none.
    """
    account = await accounts.find(name)
    if account is None:
        raise errors.NotFound(f"There is no account {name}")
    return account


def parse_credits(text: str) -> int:
    """The millicredits of a decimal number of credits, exactly.

    Raises:
        ValueError: no number, finer than a thousandth, or beyond what can be granted.
    """
    try:
        amount = Decimal(text) * 1000
    except InvalidOperation:
        raise ValueError(f"{text} is not a number of credits") from None
    if not amount.is_finite() or abs(amount) > MAX_GRANT:
        raise ValueError(f"{text} is beyond {MAX_GRANT // 1000} credits")
    if amount != amount.to_integral_value():
        raise ValueError(f"{text} is finer than a thousandth of a credit")
    return int(amount)


def format_credits(millicredits: int) -> str:
    """Millicredits as credits that a person reads: 12500 is 12.5."""
    return f"{Decimal(millicredits) / 1000:f}"
