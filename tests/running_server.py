"""A server under test: its own process, a real database, real engines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from server.settings import Settings

START_TIMEOUT_S = 180.0

ENTERPRISE = "/api/v1/enterprise"
"""The path below which the operations of the enterprise dialect are."""

HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
"""Opens a connection for every call as `httpx.get` does, without reading the file of certificates each time.

That takes 27 ms: who asks again and again until something is done would take them from the one that does it.
"""

T = TypeVar("T")


def eventually(look: Callable[[], T | None], timeout_s: float = 60, *, every_s: float = 0.05) -> T:
    """What ``look`` gives once it is true; a client of a remote server can only ask again and again.

    Raises:
        TimeoutError: it did not become true.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(every_s)
    raise TimeoutError(f"not within {timeout_s:g} s")


@dataclass
class RunningServer:
    """Where the server under test is, and who may call it.

    Attributes:
        key: of an account with plenty of credits. admin_key: of an administrator.
    """

    url: str
    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path
    key: str = ""
    admin_key: str = ""

    def client(self, key: str | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"x-api-key": key or self.key}, timeout=120)

    def post(self, operation: str, **fields: Any) -> httpx.Response:
        """The answer to an operation of the enterprise dialect; `key` pays unless ``fields`` have another."""
        body = {"key": self.key, **fields}
        return HTTP.post(f"{self.url}{ENTERPRISE}/{operation}", json=body, timeout=120)

    def answer(self, operation: str, **fields: Any) -> dict[str, Any]:
        """The body of the answer to a `post`, whose status has to be 200."""
        answer = self.post(operation, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextmanager
    def calling(self, path: str, body: Mapping[str, object], key: str | None = None) -> Iterator[None]:
        """A request whose caller hangs up at the end of the block, without having read an answer."""
        address, content = httpx.URL(self.url), json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address.host}\r\nx-api-key: {key or self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        with socket.create_connection((address.host, address.port)) as caller:
            caller.sendall(head.encode() + content)
            yield

    def account(self, name: str, credits: float, *, administrator: bool = False) -> str:
        """Create an account with that many credits; return a key of it."""

        async def create() -> str:
            database = Database(database_url(self.settings))
            try:
                accounts = Accounts(database)
                account = await accounts.create(name, is_administrator=administrator)
                if credits:
                    await Credits(database).grant(account.id, int(credits * 1000), "test")
                return await accounts.create_key(account.id)
            finally:
                await database.close()

        return asyncio.run(create())

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the server exited: {self.log.read_text()[-4000:]}")
            try:
                return HTTP.get(f"{self.url}/readyz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        try:
            eventually(ready, START_TIMEOUT_S)
        except TimeoutError:
            raise AssertionError(f"not ready: {self.log.read_text()[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL, and wait for its effect."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start_server(
    folder: Path, manifest: Path, *, accounts: bool = True, wait: bool = True, **settings: str
) -> RunningServer:
    """Start `understudy serve` with its state in ``folder`` and wait until it can draw.

    Args:
        accounts: create the two accounts whose keys the result carries; not when the folder was used before.
        wait: False returns as soon as the process has begun to start.
        settings: further UNDERSTUDY_ variables, in lower case.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "port": str(port),
        "data": str(folder / "data"),
        "manifest": str(manifest),
        "torch_threads": "1",
        "fetch_allowed_hosts": '["127.0.0.1/32"]',
        **settings,
    }
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")},
        **{f"UNDERSTUDY_{name.upper()}": value for name, value in variables.items()},
    }
    log = folder / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"], env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
    running = RunningServer(f"http://127.0.0.1:{port}", _settings(variables), process, log)
    try:
        if wait:
            running.wait_until_ready()
    except BaseException:
        running.stop()
        raise
    if accounts:
        running.key = running.account("rich", 100_000)
        running.admin_key = running.account("administrator", 100_000, administrator=True)
    return running


def preloading(manifest: Path, folder: Path, *names: str) -> Path:
    """Another manifest of the same checkpoints, of which a server loads only some before it draws."""
    folder.mkdir()
    for path in manifest.parent.iterdir():
        if path != manifest:
            (folder / path.name).symlink_to(path)
    content = yaml.safe_load(manifest.read_text())
    for name, entry in content["pipelines"].items():
        entry["resident"] = name in names
    (folder / manifest.name).write_text(yaml.safe_dump(content))
    return folder / manifest.name


def _settings(variables: dict[str, str]) -> Settings:
    return Settings(data=Path(variables["data"]), database_url=variables.get("database_url"))
