"""`understudy keys create|import|list|revoke`: who may call this server."""

from __future__ import annotations

import argparse
import codecs
import getpass
import sys
from typing import Any

from server.accounts.accounts import Account, Accounts, KeyRow, check_key
from server.accounts.credits import Credits
from server.commands.session import parse_credits, run
from server.database.database import Database

_MOST_BYTES = 4096
"""The most bytes that are read of standard input: whatever is longer is no key."""


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser("keys", help="create, import, list and revoke API keys")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    create = actions.add_parser("create", help="create a key, and its account where there is none yet")
    create.add_argument("--account", required=True, metavar="NAME")
    create.add_argument(
        "--admin", action="store_true", help="a new account may change the server for everyone"
    )
    create.add_argument("--credits", metavar="N", help="credits to grant to the account")
    create.add_argument("--label", default="", help="what the key is for")
    create.set_defaults(run=_create)

    bring = actions.add_parser(
        "import", help="make a key known that clients have already, read from standard input"
    )
    bring.add_argument("--account", required=True, metavar="NAME")
    bring.add_argument(
        "--admin", action="store_true", help="a new account may change the server for everyone"
    )
    bring.add_argument("--label", default="", help="what the key is for")
    bring.set_defaults(run=_import)

    listing = actions.add_parser("list", help="show every key's prefix, account and state")
    listing.set_defaults(run=_list)

    revoke = actions.add_parser("revoke", help="make a key unknown from now on")
    revoke.add_argument(
        "prefix", metavar="PREFIX", help="prefix or number as `keys list` shows it, or the key"
    )
    revoke.set_defaults(run=_revoke)


def _create(arguments: argparse.Namespace) -> int:
    async def create(database: Database) -> None:
        amount = parse_credits(arguments.credits) if arguments.credits else 0
        accounts = Accounts(database)
        account = await _find_or_create(accounts, arguments.account, administrator=arguments.admin)
        if amount:
            await Credits(database).grant(account.id, amount, "with a new key")
        print(await accounts.create_key(account.id, arguments.label))

    return run(create)


def _import(arguments: argparse.Namespace) -> int:
    async def bring(database: Database) -> None:
        api_key = _read_key()
        accounts = Accounts(database)
        # A key that is refused leaves no account behind.
        check_key(api_key)
        await accounts.refuse_known_key(api_key)
        account = await _find_or_create(accounts, arguments.account, administrator=arguments.admin)
        await accounts.import_key(account.id, api_key, arguments.label)
        print(f"imported a key of {account.name}")

    return run(bring)


def _read_key() -> str:
    """The key on standard input, without blanks around it; a terminal does not show what is typed."""
    if sys.stdin.isatty():
        return getpass.getpass("API key: ").strip()
    sent = sys.stdin.buffer.read(_MOST_BYTES).removeprefix(codecs.BOM_UTF8)
    return sent.decode("ascii", "replace").strip()


async def _find_or_create(accounts: Accounts, name: str, *, administrator: bool) -> Account:
    """The account of that name, created where there is none yet.

    Raises:
        ValueError: no name, or an administrator is wanted and the account is none's.
    """
    if not name.strip():
        raise ValueError("an account needs a name")
    account = await accounts.find(name)
    if account is None:
        return await accounts.create(name, is_administrator=administrator)
    if administrator and not account.is_administrator:
        raise ValueError(f"the account {account.name} exists and is no administrator's")
    return account


def _list(arguments: argparse.Namespace) -> int:
    async def show(database: Database) -> None:
        for key in await Accounts(database).keys():
            print(_line(key))

    return run(show)


def _revoke(arguments: argparse.Namespace) -> int:
    async def revoke(database: Database) -> None:
        await Accounts(database).revoke_key(arguments.prefix)
        print(f"revoked {arguments.prefix[:11]}")

    return run(revoke)


def _line(key: KeyRow) -> str:
    state = "valid" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    role = "administrator" if key.is_administrator else ""
    columns = (f"{key.id:>4}", f"{key.prefix}...", f"{key.account:20}", f"{key.created_at:%Y-%m-%d %H:%M}")
    return "  ".join((*columns, f"{state:24}", f"{role:13}", key.label)).rstrip()
