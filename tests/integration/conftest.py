"""A running server with the small checkpoints, for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_server import RunningServer, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """One server per test process."""
    running = start_server(tmp_path_factory.mktemp("server"), demo_manifest_path)
    yield running
    running.stop()
