"""`understudy keys create|import|list|revoke`: who may call this server."""

from __future__ import annotations

import codecs
import getpass
import sys
from typing import Annotated

import typer

from server.accounts.accounts import Account, Accounts, KeyRow, check_key
from server.accounts.credits import Credits
from server.commands.listing import AsJson, print_json, print_table, say_empty
from server.commands.session import parse_credits, run
from server.database.database import Database

_MOST_BYTES = 4096
"""The most bytes that are read of standard input: whatever is longer is no key."""

app = typer.Typer()

AccountName = Annotated[
    str,
    typer.Option("--account", metavar="NAME", help="Whose key; created where there is none of that name."),
]
AsAdministrator = Annotated[
    bool, typer.Option("--admin", help="A new account may change the server for everyone.")
]
Label = Annotated[str, typer.Option(help="What the key is for.")]


@app.command()
def create(
    account: AccountName,
    admin: AsAdministrator = False,
    credits: Annotated[str, typer.Option(metavar="N", help="Credits to grant to the account.")] = "",
    label: Label = "",
) -> None:
    """Create a key, and its account where there is none yet; prints the key alone."""

    async def work(database: Database) -> None:
        amount = parse_credits(credits) if credits else 0
        accounts = Accounts(database)
        owner = await _find_or_create(accounts, account, administrator=admin)
        if amount:
            await Credits(database).grant(owner.id, amount, "with a new key")
        print(await accounts.create_key(owner.id, label))

    run(work)


@app.command("import")
def bring(account: AccountName, admin: AsAdministrator = False, label: Label = "") -> None:
    """Make a key known that clients have already, read from standard input."""

    async def work(database: Database) -> None:
        api_key = _read_key()
        accounts = Accounts(database)
        # A key that is refused leaves no account behind.
        check_key(api_key)
        await accounts.refuse_known_key(api_key)
        owner = await _find_or_create(accounts, account, administrator=admin)
        await accounts.import_key(owner.id, api_key, label)
        print(f"imported a key of {owner.name}")

    run(work)


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


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """Show every key's prefix, account and state."""

    async def work(database: Database) -> None:
        keys = await Accounts(database).keys()
        if as_json:
            print_json([_facts(key) for key in keys])
            return
        if not keys:
            say_empty("There is no key yet; `understudy keys create` makes one.")
        print_table(
            ("ID", "PREFIX", "ACCOUNT", "CREATED", "STATE", "ROLE", "LABEL"), [_row(key) for key in keys]
        )

    run(work)


@app.command()
def revoke(
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="Prefix or number as `keys list` shows it, or the key.")
    ],
) -> None:
    """Make a key unknown from now on."""

    async def work(database: Database) -> None:
        await Accounts(database).revoke_key(prefix)
        print(f"revoked {prefix[:11]}")

    run(work)


def _facts(key: KeyRow) -> dict[str, object]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "account": key.account,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
        "administrator": key.is_administrator,
        "label": key.label,
    }


def _row(key: KeyRow) -> tuple[str, ...]:
    state = "valid" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    role = "administrator" if key.is_administrator else ""
    created = f"{key.created_at:%Y-%m-%d %H:%M}"
    return (str(key.id), f"{key.prefix}...", key.account, created, state, role, key.label)
