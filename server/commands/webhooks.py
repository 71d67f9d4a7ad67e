"""`understudy webhooks list|retry|secret`: the messages for receivers, and the secret that signs them."""

from __future__ import annotations

from typing import Annotated

import typer

from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.listing import AsJson, print_json, print_table, say_empty
from server.commands.session import run
from server.database.database import Database
from server.webhooks.outbox import Webhook, Webhooks, WebhookStatus
from server.webhooks.secret import webhook_secret

HEADINGS = ("ID", "STATE", "ATTEMPTS", "WHEN", "TOPIC", "URL", "PROBLEM")

app = typer.Typer()


@app.command("list")
def show(
    failed: Annotated[bool, typer.Option("--failed", help="Only those given up.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that wait for an attempt.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the kept webhooks, oldest first."""
    if failed and pending:
        raise CommandFailed("--failed and --pending exclude each other")
    status = WebhookStatus.failed if failed else WebhookStatus.pending if pending else None

    async def work(database: Database) -> None:
        webhooks = await Webhooks(database).all(status)
        if as_json:
            print_json([_facts(webhook) for webhook in webhooks])
            return
        if not webhooks:
            say_empty("There is no webhook.")
        print_table(HEADINGS, [_row(webhook) for webhook in webhooks])

    run(work)


@app.command()
def retry(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Number as `webhooks list` shows it.")],
) -> None:
    """Send webhooks again, whatever became of them."""

    async def work(database: Database) -> None:
        await Webhooks(database).retry(ids)
        print(f"due now: {' '.join(map(str, ids))}")

    run(work)


@app.command()
def secret() -> None:
    """Show what receivers verify signatures with."""
    settings = read_settings()

    async def work(_: Database) -> None:
        print(webhook_secret(settings))

    run(work)


def _facts(webhook: Webhook) -> dict[str, object]:
    return {
        "id": webhook.id,
        "state": str(webhook.status),
        "attempts": webhook.attempts,
        "due_at": webhook.due_at and webhook.due_at.isoformat(),
        "settled_at": webhook.settled_at and webhook.settled_at.isoformat(),
        "topic": webhook.topic,
        "url": webhook.url,
        "problem": webhook.problem,
    }


def _row(webhook: Webhook) -> tuple[str, ...]:
    match webhook.status:
        case WebhookStatus.pending:
            when = f"next {webhook.due_at:%Y-%m-%d %H:%M:%S}"
        case WebhookStatus.delivered | WebhookStatus.failed:
            when = f"{webhook.settled_at:%Y-%m-%d %H:%M:%S}"
    about = (str(webhook.id), str(webhook.status), str(webhook.attempts), when)
    return (*about, webhook.topic, webhook.url, webhook.problem or "")
