"""Every import contract of pyproject.toml fails when it is broken: each is broken once, in a copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

BREACHES = {
    "Drawing knows nothing of HTTP, accounts or the server": ("pipelines/group.py", "server.errors"),
    "The API process never loads what draws; the engine process's one door is pipelines.engine.process": (
        "server/studio.py",
        "torch",
    ),
    "The vocabulary and weights are torch-free": ("pipelines/weights/lock.py", "torch"),
    "The server imports the vocabulary, schedulers.names and weights, and no other room of pipelines": (
        "server/studio.py",
        "pipelines.images.codec",
    ),
    "From the engine down to the vocabulary, floor by floor": (
        "pipelines/denoising/loop.py",
        "pipelines.engine.pool",
    ),
    "Nobody outside the demo imports it, but for its command": (
        "pipelines/checkpoints/dummies.py",
        "pipelines.demo.checkpoints.glm_words",
    ),
    "Nobody imports what trains the demo's networks": (
        "pipelines/demo/build.py",
        "pipelines.demo.training.train",
    ),
    "The demo's rooms: training above judging above checkpoints above the world": (
        "pipelines/demo/world/world.py",
        "pipelines.demo.checkpoints.parts",
    ),
    "Families never import each other; what SD1.5 and SDXL share stands below them": (
        "pipelines/families/sdxl.py",
        "pipelines.families.sd15",
    ),
    "From the command line down to errors and settings": ("server/jobs/jobs.py", "server.studio"),
    "Segmind's pages never import each other": (
        "server/endpoints/segmind/kolors.py",
        "server.endpoints.segmind.sd3_med_pose",
    ),
    "Enterprise's pages never import each other": (
        "server/endpoints/enterprise/inpaint.py",
        "server.endpoints.enterprise.img2img",
    ),
    "Endpoints reach storage, engines and database only through the caller's services": (
        "server/endpoints/outputs.py",
        "server.storage",
    ),
}
"""The name of a contract -> a file, and the module that it may not import."""


LINT = "import sys; from importlinter.cli import lint_imports; sys.path[0] = ''; sys.exit(lint_imports())"
"""The command ``lint-imports`` on the packages of the current folder, not on the installed ones."""


def test_every_contract_has_a_breach():
    assert {contract["name"] for contract in CONFIGURATION["contracts"]} == set(BREACHES)


@pytest.mark.slow
@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_contract_is_told(name: str, tmp_path: Path):
    for package in ("server", "pipelines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file, module = BREACHES[name]
    with (tmp_path / file).open("a") as source:
        source.write(f"\nimport {module}\n")

    told = subprocess.run([sys.executable, "-c", LINT], cwd=tmp_path, capture_output=True, text=True)

    assert told.returncode == 1
    assert "".join(f"{name} BROKEN".split()) in "".join(told.stdout.split())  # long names are broken anywhere
