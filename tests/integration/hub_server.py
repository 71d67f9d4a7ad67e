"""A small model hub on 127.0.0.1, with as much of the real one's protocol as its client needs to download."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pth", ".pt", ".model")
"""Kept in large-file storage, as on the hub: a redirect, SHA-256 instead of git's blob id."""


@dataclass
class Repo:
    """One repository.

    Attributes:
        files: name -> bytes.
        gated: needs a token of ``allowed``.
        announced: name -> size that the listing claims instead of the true one.
        altered: names whose bytes arrive with one bit flipped.
        cut: name -> how often its transfer breaks off in the middle.
        not_resumable: names for which Range is ignored.
        expired: name -> how often the storage refuses it in the middle, as when a signature has expired.
        xet: names that the hub offers from its Xet storage, too.
        held: name -> waits before its bytes are sent, until the event is set.
        midway: name -> called when all but a piece of it was sent, once; then the connection closes.
    """

    files: dict[str, bytes]
    commit: str = "1" * 40
    gated: bool = False
    allowed: set[str] = field(default_factory=set)
    announced: dict[str, int] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    not_resumable: set[str] = field(default_factory=set)
    expired: dict[str, int] = field(default_factory=dict)
    xet: set[str] = field(default_factory=set)
    held: dict[str, threading.Event] = field(default_factory=dict)
    midway: dict[str, Callable[[], None]] = field(default_factory=dict)


class HubServer:
    """Serves ``repos`` on a free port; ``requests`` records (method, path, Range, Authorization)."""

    def __init__(self, repos: dict[str, Repo], tokens: set[str] | None = None) -> None:
        self.repos = repos
        self.tokens = tokens or set()
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        return [
            path.split("/", 5)[5]
            for method, path, _, _ in self.requests
            if method == "GET" and path.startswith(("/blobs/", "/plain/")) and path.count("/") >= 5
        ]

    def ranges(self) -> list[str | None]:
        return [span for method, path, span, _ in self.requests if method == "GET" and "/blobs/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        self.server_state.requests.append((self.command, path, self.headers.get("Range"), token))
        if token is not None and token.removeprefix("Bearer ") not in self.server_state.tokens:
            message = "Invalid credentials in Authorization header"
            return self._send(401, message.encode(), {"X-Error-Message": message})
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:], token)
        if parts[0] in ("blobs", "plain"):
            return self._bytes("/".join(parts[1:3]), "/".join(parts[4:]))
        if len(parts) > 4 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), token)
        return self._send(404, b"not found", {})

    def _api(self, name: str, rest: list[str], token: str | None) -> None:
        repo = self.server_state.repos.get(name)
        if repo is None:
            # The real hub says 401 to strangers, so as not to tell which names exist.
            return self._send(401 if token is None else 404, b"", {"X-Error-Code": "RepoNotFound"})
        if rest and rest[0] == "xet-read-token":
            said = {
                "X-Xet-Cas-Url": f"{self.server_state.url}/cas",
                "X-Xet-Access-Token": "xet-token",
                "X-Xet-Token-Expiration": "4102444800",
            }
            return self._send(200, b"{}", said)
        if rest and rest[0] in ("revision", "tree") and rest[1] not in ("main", repo.commit):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if not rest or rest[0] == "revision":
            found = {"_id": "0", "id": name, "modelId": name, "sha": repo.commit, "private": False}
            return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        tree = [self._entry(repo, file, data) for file, data in repo.files.items()]
        return self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _entry(repo: Repo, file: str, data: bytes) -> dict[str, object]:
        size = repo.announced.get(file, len(data))
        entry: dict[str, object] = {"type": "file", "path": file, "size": size, "oid": blob_id(data)}
        if file.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, name: str, revision: str, file: str, token: str | None) -> None:
        repo = self.server_state.repos[name]
        if repo.gated and token is None:
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        if repo.gated and (token or "").removeprefix("Bearer ") not in repo.allowed:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        if file not in repo.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = repo.files[file]
        headers = {"X-Repo-Commit": repo.commit}
        if file.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            if file in repo.xet:
                route = f"{self.server_state.url}/api/models/{name}/xet-read-token/{revision}"
                headers |= {"X-Xet-Hash": digest, "Link": f'<{route}>; rel="xet-auth"'}
            # Another host name, as the real hub's storage has.
            storage = self.server_state.url.replace("127.0.0.1", "localhost")
            headers["Location"] = f"{storage}/blobs/{name}/{revision}/{file}"
            return self._send(302, b"", headers)
        headers |= {"ETag": f'"{blob_id(data)}"', "Location": f"/plain/{name}/{revision}/{file}"}
        return self._send(307, b"", headers)

    def _bytes(self, name: str, file: str) -> None:
        repo = self.server_state.repos[name]
        data = repo.files[file]
        if self.command == "GET" and file in repo.held:
            assert repo.held[file].wait(30)
        if file in repo.altered:
            data = bytes([data[0] ^ 1]) + data[1:]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{blob_id(repo.files[file])}"'}
        start = 0
        span = self.headers.get("Range")
        if span is not None and file not in repo.not_resumable:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        if start and repo.expired.get(file, 0) > 0:
            repo.expired[file] -= 1
            return self._send(403, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", {})
        if self.command == "GET" and repo.cut.get(file, 0) > 0:
            repo.cut[file] -= 1
            return self._send(200, rest[: len(rest) // 2], headers, length=len(rest))
        if self.command == "GET" and file in repo.midway:
            happens = repo.midway.pop(file)
            self._send(200, rest[: len(rest) * 9 // 10], headers, length=len(rest))
            return happens()
        return self._send(206 if "Content-Range" in headers else 200, rest, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None:
            self.wfile.flush()
            self.close_connection = True


def blob_id(data: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
