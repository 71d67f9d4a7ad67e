"""`understudy serve`: the server itself, configured by the environment."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Annotated

import typer
import uvicorn

from server import errors
from server.app import create_app
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.session import check_data_folder
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.settings import Settings

KEEP_ALIVE_S = 75
"""The seconds that a connection is kept without a call. Clients ask for their picture every 5 to 60 seconds
over one connection; a call that meets its closing is lost, and most libraries do not send a POST twice."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (UNDERSTUDY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (UNDERSTUDY_PORT).")] = None,
) -> None:
    """Answer requests until Ctrl-C."""
    settings = read_settings(host=host, port=port)
    if not settings.manifest.exists():
        raise CommandFailed(f"There is no manifest at {settings.manifest} (UNDERSTUDY_MANIFEST).")
    check_data_folder(settings)
    listener = listen(settings)
    check_free(settings)
    run_until_stopped(web_server(settings, settings.log_level), listener)


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


def check_free(settings: Settings) -> None:
    """Check that a server may start on the database; the start asks again.

    Raises:
        CommandFailed: another one runs on it, or it is not usable.
    """

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
        raise CommandFailed(str(error)) from error


def listen(settings: Settings) -> socket.socket:
    """Bind the address before anything heavy starts.

    Raises:
        CommandFailed: it is taken, or none of this machine's.
    """
    try:
        return socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        raise CommandFailed(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
