"""A receiver of webhooks on this machine: it remembers what came and answers as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One POST: its path, headers in lower case, and body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """
    Attributes:
        statuses: answers to the next calls; 200 when there are no more.
        headers: sent with every answer.
        answering: while this is not set, calls are taken and not answered.
        on_taken: called in the middle of a call: when it was taken, before it is answered.
        on_answered: called when it was answered, before the caller can have done much about it.
    """

    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict[str, str])
    answering: threading.Event = field(default_factory=threading.Event)
    on_taken: Callable[[Received], None] = lambda _: None
    on_answered: Callable[[Received], None] = lambda _: None
    received: list[Received] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiver() -> Generator[Receiver]:
    """A receiver that answers."""
    it = Receiver()
    it.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:
                return  # whoever called was killed in the middle of a word
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Received(self.path, headers, body)
            it.received.append(call)
            it.on_taken(call)
            it.answering.wait()
            try:
                self.send_response(it.statuses.pop(0) if it.statuses else 200)
                for name, value in it.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                it.on_answered(call)
            except OSError:
                pass  # whoever called is gone

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield it
    finally:
        it.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


def nobody_listens() -> str:
    """A URL whose port refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
