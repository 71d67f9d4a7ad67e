"""The HTTP server as a person meets it: where it is when it is up, what it waits for, and no traceback."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, cast

import uvicorn

from server.engines.devices import devices
from server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from server.http.services import Services

SAME_PRESS_S = 0.3
"""The seconds within which a second signal is the first one again: a terminal sends Ctrl-C to a whole group,
whose leader may pass it on."""

EVERYWHERE = ("0.0.0.0", "::", "")
"""The addresses to listen on that stand for all of a machine."""

_ERROR = re.compile(r"[A-Za-z_][\w.]*: ")
"""The line of a traceback that names the error."""


class TellingServer(uvicorn.Server):
    """uvicorn's server, which tells a person what it does.

    Attributes:
        announce: whether the addresses are printed as soon as it is up.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings, *, announce: bool) -> None:
        super().__init__(config)
        self.announce = announce
        self._settings = settings
        self._asked_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        if self.started and self.announce:
            print(announcement(self._settings), flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave, and say what is waited for; on the second signal leave at once.

        What is lost by that is mended at the next start: see server/decisions/0005.
        """
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < SAME_PRESS_S:
            return
        if self._asked_at is not None:
            _say("Left at once; what was not drawn is refunded, or drawn after the next start.")
            os._exit(128 + sig)
        self._asked_at = now
        again = "Ctrl-C again" if sig == signal.SIGINT else "A second signal"
        _say(f"Stopping. {self._waiting()} {again} leaves at once.")
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let callers have their answers, and say how many wait whenever that changes."""
        telling = asyncio.create_task(self._tell())
        try:
            await super().shutdown(sockets)
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    async def _tell(self) -> None:
        said = len(self.server_state.connections)
        while said:
            await asyncio.sleep(0.1)
            callers = len(self.server_state.connections)
            if 0 < callers < said:
                _say(f"{_count(callers, 'caller')} left. {self._waiting()}")
            said = callers

    def _waiting(self) -> str:
        """What is drawn and what waits, in a sentence."""
        services = cast("Services | None", getattr(cast("FastAPI", self.config.app).state, "services", None))
        if services is None:
            return "Nothing is being drawn."
        drawn, queued = services.dispatch.running, services.dispatch.queue_length
        more = f", {queued} more in the queue" if queued else ""
        if not drawn and not queued:
            return "Nothing is being drawn."
        return f"Waiting for {_count(drawn, 'request')} being drawn{more}."


def announcement(settings: Settings) -> str:
    """The addresses and devices of a server that is up, for whoever has started it."""
    host = "127.0.0.1" if settings.host in EVERYWHERE else settings.host
    here = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    everywhere = ", and every other address of this machine" if settings.host in EVERYWHERE else ""
    lines = [
        "Understudy is up.",
        f"  address   {here}{everywhere}",
        *([f"  public    {settings.public_url}"] if settings.public_url else []),
        f"  pages     {(settings.public_url or here).rstrip('/')}/docs",
        f"  devices   {', '.join(devices(settings.devices))}",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


def without_traceback(record: logging.LogRecord) -> bool:
    """Leave of a failed start what happened; a traceback says nothing to whoever set a setting wrongly."""
    message = record.getMessage()
    if message.startswith("Traceback ") and not logging.getLogger("server").isEnabledFor(logging.DEBUG):
        # The error begins at the margin; what is below the last such line belongs to it.
        named = [line for line in message.splitlines() if _ERROR.match(line)]
        record.msg, record.args = (named or [message.strip().splitlines()[-1]])[-1], ()
    return True


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _say(words: str) -> None:
    """Write a line past Python's buffers, which a signal may have interrupted in the middle of a write."""
    with suppress(OSError):
        os.write(sys.stderr.fileno() if hasattr(sys.stderr, "fileno") else 2, f"{words}\n".encode())
