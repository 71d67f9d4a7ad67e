"""`understudy serve`: the server itself, configured by the environment."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from contextlib import suppress
from typing import Any

import uvicorn

from server import errors
from server.app import create_app
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.settings import Settings

KEEP_ALIVE_S = 75
"""The seconds that a connection is kept without a call. Clients ask for their picture every 5 to 60 seconds
over one connection; a call that meets its closing is lost, and most libraries do not send a POST twice."""


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser("serve", help="answer requests until Ctrl-C")
    parser.add_argument("--host", help="address to listen on (UNDERSTUDY_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (UNDERSTUDY_PORT)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in ("host", "port") if getattr(arguments, name)}
    settings = Settings(**given)
    if not settings.manifest.exists():
        print(f"There is no manifest at {settings.manifest} (UNDERSTUDY_MANIFEST).", file=sys.stderr)
        return 2
    listener = listen(settings)
    if listener is None or not is_free(settings):
        return 2
    run_until_stopped(web_server(settings, settings.log_level), listener)
    return 0


def web_server(settings: Settings, log_level: str) -> uvicorn.Server:
    """The HTTP server, not yet running.

    Its parser is h11. The other one, httptools, loses the body of a request that offers HTTP/2 as well, and
    Java's own client offers it with every call that is not encrypted.
    """
    configured = uvicorn.Config(
        create_app(settings), http="h11", log_level=log_level, timeout_keep_alive=KEEP_ALIVE_S
    )
    logging.getLogger("uvicorn.access").addFilter(without_query)
    return uvicorn.Server(configured)


def without_query(record: logging.LogRecord) -> bool:
    """Take what stands behind the question mark out of a line of the access log: it may have a key in it."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument.partition("?")[0] if isinstance(argument, str) else argument for argument in record.args
        )
    return True


def run_until_stopped(server: uvicorn.Server, listener: socket.socket) -> None:
    """Answer until the server is told to leave. Ctrl-C is the ordinary way; uvicorn raises it once more."""
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def is_free(settings: Settings) -> bool:
    """Whether a server may start on the database; where not, the reason is printed. The start asks again."""

    async def look() -> None:
        database = Database(database_url(settings))
        try:
            async with database.hold_server_lock():
                pass
        finally:
            await database.close()

    try:
        asyncio.run(look())
    except (UnusableDatabase, errors.Unavailable) as error:
        print(error, file=sys.stderr)
        return False
    return True


def listen(settings: Settings) -> socket.socket | None:
    """Bind the address before anything heavy starts; None, and a word on stderr, when it is taken."""
    try:
        return socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        print(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
        return None
