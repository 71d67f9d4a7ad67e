"""`understudy credits grant|show`: what accounts can spend."""

from __future__ import annotations

import argparse
from typing import Any

from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.commands.session import find_account, format_credits, parse_credits, run
from server.database.database import Database

SHOWN_MOVEMENTS = 20


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser("credits", help="grant and show credits")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    grant = actions.add_parser("grant", help="add credits to an account; a negative amount takes them back")
    grant.add_argument("--account", required=True, metavar="NAME")
    grant.add_argument("--note", default="", help="what the ledger is to say")
    grant.add_argument("amount", metavar="AMOUNT", help="credits, to a thousandth: 12.5")
    grant.set_defaults(run=_grant)

    show = actions.add_parser("show", help="show every balance, or one account's with its last movements")
    show.add_argument("--account", metavar="NAME")
    show.set_defaults(run=_show)


def _grant(arguments: argparse.Namespace) -> int:
    async def grant(database: Database) -> None:
        amount = parse_credits(arguments.amount)
        account = await find_account(Accounts(database), arguments.account)
        balance = await Credits(database).grant(account.id, amount, arguments.note)
        print(f"{account.name}  {format_credits(balance)}")

    return run(grant)


def _show(arguments: argparse.Namespace) -> int:
    async def show(database: Database) -> None:
        accounts = Accounts(database)
        if arguments.account is None:
            for account in await accounts.all():
                print(f"{account.name:20}  {format_credits(account.balance):>12}")
            return
        account = await find_account(accounts, arguments.account)
        for row in await Credits(database).ledger(account.id, limit=SHOWN_MOVEMENTS):
            job = "" if row.job_id is None else f"job {row.job_id}"
            line = (
                f"{row.created_at:%Y-%m-%d %H:%M}  {row.kind:8}  {format_credits(row.amount):>12}  {job:10}"
            )
            print(f"{line}  {row.note}".rstrip())
        print(f"{account.name:20}  {format_credits(account.balance):>12}")

    return run(show)
