"""The random SD1.5 and SDXL checkpoints for tests that write beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.weights.manifest import Manifest, load_manifest

COPIED = ("safety_checker", "sd15", "sd15_adapters", "sdxl", "upscaler.safetensors", "weights.yaml")


@pytest.fixture(scope="module")
def manifest(random_manifest_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Both checkpoints and what goes with them, in a folder of the module; it has the others' names, too."""
    folder = tmp_path_factory.mktemp("random")
    for name in COPIED:
        source = random_manifest_path.parent / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return load_manifest(folder / "weights.yaml")
