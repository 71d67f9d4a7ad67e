"""One local loop with the small checkpoints for all tests of meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.demo.training.local_loop import LocalLoop


@pytest.fixture(scope="session")
def local_loop(demo_manifest_path: Path) -> LocalLoop:
    return LocalLoop(demo_manifest_path)
