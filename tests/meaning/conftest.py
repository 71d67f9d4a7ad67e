"""One studio with the small checkpoints for all tests of meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.demo.studio import Studio


@pytest.fixture(scope="session")
def studio(demo_manifest_path: Path) -> Studio:
    return Studio(demo_manifest_path)
