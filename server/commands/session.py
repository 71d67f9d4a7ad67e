"""A command's session on the database: open it, bring it up to date, say plainly what is wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation

from pydantic import ValidationError

from server import errors
from server.accounts.accounts import Account, Accounts
from server.accounts.credits import MAX_GRANT
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.settings import Settings

DONE, ASKED_WRONGLY = 0, 2


def run(work: Callable[[Database], Awaitable[None]]) -> int:
    """Do ``work`` on the configured database, which may be in use by a running server.

    Returns:
        the exit status; problems are printed on stderr.
    """
    try:
        asyncio.run(_run(work))
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"UNDERSTUDY_{name}: {problem['msg']}", file=sys.stderr)
        return ASKED_WRONGLY
    except (errors.ApiError, UnusableDatabase, ValueError) as error:
        print(error, file=sys.stderr)
        return ASKED_WRONGLY
    return DONE


async def _run(work: Callable[[Database], Awaitable[None]]) -> None:
    database = Database(database_url(Settings()))
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
