"""A Python with the project's core and nothing that draws: a real environment, made without a download."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

NEVER_IN_THE_CORE = {
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
}
NEVER_IN_THE_CORE |= {"safetensors", "controlnet-aux", "opencv-python-headless", "scikit-image", "py3langid"}
NEVER_IN_THE_CORE |= {"spandrel", "timm", "onnxruntime", "triton", "tomesd", "sentencepiece"}
"""Distributions that draw, or that come with those that do."""


def declared(extra: str = "") -> list[Requirement]:
    """The requirements that pyproject.toml gives for the core, or for an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in lines]


def required_by(requirements: Iterable[Requirement]) -> set[str]:
    """The names of all distributions that come with these, themselves included, as installed here."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    waiting = [(each, extra) for each in requirements for extra in ("", *each.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        try:
            needs = [Requirement(line) for line in distribution(name).requires or []]
        except PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need, each) for each in ("", *need.extras)]
    return found


def core_only_python(folder: Path) -> Path:
    """Make an environment of the core in a folder; the path of its interpreter.

    Its packages are links to those of the running interpreter, so that it has the same versions.
    """
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    installed = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    for name in required_by(declared()):
        for file in distribution(name).files or []:
            top = file.parts[0]
            source = next((each / top for each in installed if (each / top).exists()), None)
            if source is not None and top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(source)
    for package in ("server", "pipelines"):
        (site / package).symlink_to(ROOT / package)
    return folder / "bin" / Path(sys.executable).name


def resolve(requirements: list[str], version: str, folder: Path) -> dict[str, str]:
    """Name -> version of what pip would install; nothing is installed."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    command += ["--ignore-installed", "--python-version", version, "--only-binary=:all:"]
    command += ["--target", str(folder / "none"), "--disable-pip-version-check", "--retries", "1"]
    told = subprocess.run([*command, *requirements], capture_output=True, text=True, timeout=500)
    if re.search(r"NewConnectionError|ConnectTimeout|Name or service|ProxyError|Max retries", told.stderr):
        pytest.skip("the package registry is not within reach")
    assert told.returncode == 0, told.stderr
    return {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
        for item in json.loads(told.stdout)["install"]
    }
