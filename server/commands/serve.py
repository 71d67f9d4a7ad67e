"""`understudy serve`: the server itself, configured by the environment."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Annotated

import typer
import uvicorn
from obstore.exceptions import BaseError

from server import errors
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.session import check_data_folder
from server.commands.telling_server import TellingServer, without_traceback
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.settings import Settings
from server.storage import open_storage

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
    _check_storage(settings)
    run_until_stopped(web_server(settings, settings.log_level, announce=True), listener)


def _check_storage(settings: Settings) -> None:
    """Check that the storage can be opened; nothing is contacted yet."""
    try:
        open_storage(settings)
    except (BaseError, OSError, ValueError) as error:
        words = str(error).strip().splitlines()[0]
        raise CommandFailed(f"The storage cannot be opened: {words} (UNDERSTUDY_STORAGE_...)") from error


def web_server(settings: Settings, log_level: str, *, announce: bool = False) -> uvicorn.Server:
    """The HTTP server, not yet running.

    Its parser is h11. The other one, httptools, loses the body of a request that offers HTTP/2 as well, and
    Java's own client offers it with every call that is not encrypted.
    """
    # Not at the top: importing all pages takes seconds, which whoever set a setting wrongly need not wait.
    from server.app import create_app

    configured = uvicorn.Config(
        create_app(settings), http="h11", log_level=log_level, timeout_keep_alive=KEEP_ALIVE_S
    )
    logging.getLogger("uvicorn.access").addFilter(without_query)
    logging.getLogger("uvicorn.error").addFilter(without_traceback)
    return TellingServer(configured, settings, announce=announce)


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
