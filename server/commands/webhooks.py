"""`understudy webhooks list|retry|secret`: the messages for receivers, and the secret that signs them."""

from __future__ import annotations

import argparse
from typing import Any

from server.commands.session import run
from server.database.database import Database
from server.settings import Settings
from server.webhooks.outbox import Webhook, Webhooks, WebhookStatus
from server.webhooks.secret import webhook_secret


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser("webhooks", help="list and retry webhooks, show their signing secret")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="show the kept webhooks, oldest first")
    only = listing.add_mutually_exclusive_group()
    for status, meaning in (("failed", "given up"), ("pending", "that wait for an attempt")):
        only.add_argument(
            f"--{status}", dest="status", action="store_const", const=status, help=f"only those {meaning}"
        )
    listing.set_defaults(run=_list)

    retry = actions.add_parser("retry", help="send webhooks again, whatever became of them")
    retry.add_argument("ids", nargs="+", type=int, metavar="ID", help="number as `webhooks list` shows it")
    retry.set_defaults(run=_retry)

    secret = actions.add_parser("secret", help="show what receivers verify signatures with")
    secret.set_defaults(run=_secret)


def _list(arguments: argparse.Namespace) -> int:
    async def show(database: Database) -> None:
        status = arguments.status and WebhookStatus(arguments.status)
        for webhook in await Webhooks(database).all(status):
            print(_line(webhook))

    return run(show)


def _retry(arguments: argparse.Namespace) -> int:
    async def retry(database: Database) -> None:
        await Webhooks(database).retry(arguments.ids)
        print(f"due now: {' '.join(map(str, arguments.ids))}")

    return run(retry)


def _secret(_: argparse.Namespace) -> int:
    async def show(_: Database) -> None:
        print(webhook_secret(Settings()))

    return run(show)


def _line(webhook: Webhook) -> str:
    match webhook.status:
        case WebhookStatus.pending:
            state = f"next {webhook.due_at:%Y-%m-%d %H:%M:%S}"
        case WebhookStatus.delivered | WebhookStatus.failed:
            state = f"     {webhook.settled_at:%Y-%m-%d %H:%M:%S}"
    columns = (
        f"{webhook.id:>6}",
        f"{webhook.status:9}",
        f"{webhook.attempts:>2} attempts",
        state,
        f"{webhook.topic:12}",
        webhook.url,
        webhook.problem or "",
    )
    return "  ".join(columns).rstrip()
