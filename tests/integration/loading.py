"""What tests of load_model share: calls of a running server, and a server of files with bad habits."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from tests.running_server import HTTP, RunningServer, eventually

MODEL = "stable-diffusion-v1-5"
SMALL = {"prompt": "a cat", "width": 256, "height": 256, "num_inference_steps": 2, "seed": 5}
LOADED = "Model exists on server"


def post(server: RunningServer, operation: str, **fields: Any) -> dict[str, Any]:
    """The body of the answer to an administrator, or to the one whose key the fields have."""
    return server.answer(operation, **{"key": server.admin_key, **fields})


def drawn(server: RunningServer, model_id: str, *, operation: str = "text2img", **fields: Any) -> bytes:
    """The pixels of one picture."""
    answer = post(server, operation, model_id=model_id, **{**SMALL, **fields})
    assert answer["status"] == "success", answer
    return Image.open(io.BytesIO(HTTP.get(answer["output"][0]).content)).tobytes()


def verified(server: RunningServer, name: str) -> str:
    """What verify_model says when the load has ended."""

    def ended() -> str | None:
        message = post(server, "verify_model", model_id=name)["message"]
        return None if "being loaded" in message else message

    return eventually(ended)


@dataclass
class Offered:
    """One file of a `FileServer`.

    Attributes:
        chunked: its length is not said beforehand.
        endless: its bytes are sent again and again.
        marked: it has an ETag.
        silent: the request is taken, and nothing is ever answered.
        stops_after: so many bytes are sent and then no more, while the connection stays open.
        stopped: called when they were sent, in the thread that sends.
    """

    data: bytes
    chunked: bool = False
    endless: bool = False
    marked: bool = True
    silent: bool = False
    stops_after: int | None = None
    stopped: Callable[[], None] = lambda: None


class FileServer:
    """Serves ``files`` on a free port.

    Attributes:
        requests: path and Range of each GET.
        sent: bytes of bodies that went out, by path.
    """

    def __init__(self, files: dict[str, Offered]) -> None:
        self.files = files
        self.requests: list[tuple[str, str | None]] = []
        self.sent: dict[str, int] = {}
        self.leaving = threading.Event()
        serving = self

        class Handler(_Handler):
            offering = serving

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.leaving.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    offering: FileServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output clean."""

    def do_GET(self) -> None:
        name, span = self.path.removeprefix("/"), self.headers.get("Range")
        self.offering.requests.append((name, span))
        file = self.offering.files[name]
        if file.silent:
            self.offering.leaving.wait()
            return None
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start >= len(file.data):
            return self._head(416, {"Content-Length": "0"})
        length = (
            {"Transfer-Encoding": "chunked"} if file.chunked else {"Content-Length": len(file.data) - start}
        )
        part = {"Content-Range": f"bytes {start}-{len(file.data) - 1}/{len(file.data)}"} if span else {}
        mark = {"ETag": '"this one"'} if file.marked else {}
        self._head(206 if span else 200, mark | part | length)
        try:
            self._body(name, file, start)
        except OSError:
            self.close_connection = True  # whoever asked has heard enough

    def _head(self, status: int, headers: dict[str, Any]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def _body(self, name: str, file: Offered, start: int) -> None:
        end = len(file.data) if file.stops_after is None else file.stops_after
        while True:
            for at in range(start, end, 10_000):
                self._piece(file, file.data[at : min(at + 10_000, end)])
                self.offering.sent[name] = self.offering.sent.get(name, 0) + 10_000
            if not file.endless:
                break
        if file.stops_after is not None:
            file.stopped()
            self.offering.leaving.wait()
        elif file.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _piece(self, file: Offered, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if file.chunked else piece)
