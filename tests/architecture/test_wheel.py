"""The wheel holds what run time needs, and neither what trains nor what judges the demo's networks."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NOT_SHIPPED = ("pipelines/demo/training/", "pipelines/demo/judging/")
RUN_TIME_FILES = (".py", ".yaml", ".json", ".txt", ".safetensors", ".mako")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths in a wheel that is built from the sources, with empty files for the demo's weights."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for name in ("server", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for path in (ROOT / "pipelines").rglob("*.safetensors"):
        (copy / path.relative_to(ROOT)).touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    program = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=copy, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    (built,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_has_every_module_and_data_file_that_run_time_needs(wheel: set[str]) -> None:
    files = [path for name in ("server", "pipelines") for path in (ROOT / name).rglob("*")]
    names = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in RUN_TIME_FILES}
    needed = {name for name in names if not name.startswith(NOT_SHIPPED)}
    for some in ("pipelines/demo/weights/sd15.safetensors", "pipelines/checkpoints/configs/clip/merges.txt"):
        assert some in needed
    assert needed <= wheel


def test_the_wheel_has_neither_what_trains_nor_what_judges_the_networks_of_the_demo(wheel: set[str]) -> None:
    assert [name for name in wheel if name.startswith(NOT_SHIPPED)] == []
    assert [name for name in wheel if name.endswith((".jpg", ".png", ".webp"))] == []


def test_nothing_in_the_wheel_imports_what_is_left_out(wheel: set[str]) -> None:
    left_out = tuple(folder.replace("/", ".").rstrip(".") for folder in NOT_SHIPPED)
    modules = [name for name in wheel if name.endswith(".py")]
    assert len(modules) > 200
    for name in modules:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.startswith(left_out)], name
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(left_out), name
