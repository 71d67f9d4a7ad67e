"""The API process stays light: what draws is loaded by engine processes alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def forbidden_in_the_api_process() -> set[str]:
    """The packages of the import contract that says the same of the code."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["name"].startswith("The API process never loads"))
    return set(contract["forbidden_modules"])


def loaded_after(statement: str) -> set[str]:
    """Names of the top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout))


def test_the_api_process_loads_nothing_that_draws():
    assert loaded_after("import server.app, server.__main__").isdisjoint(forbidden_in_the_api_process())


@pytest.mark.slow
def test_the_probe_would_notice():
    loaded = loaded_after("import pipelines.engine.process")
    assert len(loaded & forbidden_in_the_api_process()) > 5


def test_packages_have_empty_faces_so_that_importing_a_module_loads_nothing_beside_it():
    faces = [path for folder in ("pipelines", "server") for path in (ROOT / folder).rglob("__init__.py")]
    assert len(faces) > 20
    assert [path.relative_to(ROOT).as_posix() for path in faces if path.read_text().strip()] == []


@pytest.mark.slow
def test_what_only_photographs_need_is_loaded_with_the_first_one():
    families = "pipelines.families.sd15, pipelines.families.sdxl, pipelines.families.sd3_pose"
    loaded = loaded_after(f"import pipelines.engine.process, {families}")
    assert "diffusers" in loaded
    assert loaded.isdisjoint({"controlnet_aux", "timm", "matplotlib", "cv2", "skimage"})
