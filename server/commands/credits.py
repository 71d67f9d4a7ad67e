"""`understudy credits grant|show`: what accounts can spend."""

from __future__ import annotations

from typing import Annotated

import typer

from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.commands.listing import AsJson, print_json, print_table, say_empty
from server.commands.session import find_account, format_credits, parse_credits, run
from server.database.database import Database

SHOWN_MOVEMENTS = 20

app = typer.Typer()


# An amount may begin with a minus, and is no option then.
@app.command(context_settings={"ignore_unknown_options": True})
def grant(
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits, to a thousandth: 12.5.")],
    account: Annotated[str, typer.Option(metavar="NAME", help="Whose credits.")],
    note: Annotated[str, typer.Option(help="What the ledger is to say.")] = "",
) -> None:
    """Add credits to an account; a negative amount takes them back."""

    async def work(database: Database) -> None:
        millicredits = parse_credits(amount)
        found = await find_account(Accounts(database), account)
        balance = await Credits(database).grant(found.id, millicredits, note)
        print(f"{found.name}  {format_credits(balance)}")

    run(work)


@app.command()
def show(
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only this account's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every balance, or one account's with its last movements."""

    async def work(database: Database) -> None:
        if account is None:
            await _show_balances(database, as_json=as_json)
        else:
            await _show_movements(database, account, as_json=as_json)

    run(work)


async def _show_balances(database: Database, *, as_json: bool) -> None:
    accounts = await Accounts(database).all()
    balances = [(account.name, format_credits(account.balance)) for account in accounts]
    if as_json:
        print_json([{"account": name, "credits": balance} for name, balance in balances])
        return
    if not balances:
        say_empty("There is no account yet; `understudy keys create` makes one.")
    print_table(("ACCOUNT", "CREDITS"), balances, right=frozenset({"CREDITS"}))


async def _show_movements(database: Database, name: str, *, as_json: bool) -> None:
    account = await find_account(Accounts(database), name)
    ledger = await Credits(database).ledger(account.id, limit=SHOWN_MOVEMENTS)
    balance = format_credits(account.balance)
    if as_json:
        movements = [
            {
                "at": row.created_at.isoformat(),
                "kind": str(row.kind),
                "credits": format_credits(row.amount),
                "job": row.job_id,
                "note": row.note,
            }
            for row in ledger
        ]
        print_json({"account": account.name, "credits": balance, "movements": movements})
        return
    rows = [
        (
            f"{row.created_at:%Y-%m-%d %H:%M}",
            str(row.kind),
            format_credits(row.amount),
            "" if row.job_id is None else f"job {row.job_id}",
            row.note,
        )
        for row in ledger
    ]
    print_table(("WHEN", "KIND", "CREDITS", "JOB", "NOTE"), rows, right=frozenset({"CREDITS"}))
    print(f"{account.name}  {balance}")
