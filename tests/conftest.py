"""Fixtures shared by all layers: the small checkpoints, built once and kept; a running server with them."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Several workers share the cores; threads that spin for each other would only take them from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipelines.engine.host_memory import reuse_freed_memory
from pipelines.weights.manifest import Manifest, load_manifest
from tests.running_server import RunningServer, start_server

reuse_freed_memory()


def pytest_configure(config: pytest.Config) -> None:
    """Who asks for tests that need a GPU where there is none is told so, once."""
    wanted = config.option.markexpr
    asked_for = not wanted or re.search(r"(?<!not )\bgpu\b", wanted)
    if asked_for and not config.option.collectonly:
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("tests marked gpu need a CUDA device, and torch sees none here")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Half a million objects come with torch and its company, and stay: nobody looks for garbage in them, not
    while they are imported, nor whenever a pool empties its caches."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def demo_manifest_path() -> Path:
    """Path of a weights.yaml whose pipelines are the small checkpoints."""
    from pipelines.demo.build import ensure

    return ensure(_cache())


@pytest.fixture(scope="session")
def demo_manifest(demo_manifest_path: Path) -> Manifest:
    return load_manifest(demo_manifest_path)


@pytest.fixture(scope="session")
def random_manifest_path() -> Path:
    """Path of a weights.yaml whose checkpoints have random weights and the published shapes."""
    from tests.random_checkpoints.build import ensure

    return ensure(_cache())


@pytest.fixture(scope="session")
def random_manifest(random_manifest_path: Path) -> Manifest:
    return load_manifest(random_manifest_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """One server per test process, for tests that leave it as it is."""
    running = start_server(tmp_path_factory.mktemp("server"), demo_manifest_path)
    yield running
    running.stop()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy-tests"
