"""Checkpoints of the published shapes (8 pixels per latent) and random weights, smaller than the demo's.

What they draw means nothing. They are for tests of how something is drawn: sizes, bytes, memory.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

from pipelines.demo import build as demo
from pipelines.weights.manifest import Manifest, load_manifest

HERE = Path(__file__).parent
_OWN, _OF_THE_DEMO = "tests.random_checkpoints", "pipelines.demo.checkpoints"
"""The latter are random there too."""
_BUILDERS = {
    "safety_checker": _OWN,
    "sd15": _OWN,
    "sdxl": _OWN,
    "controlnets": _OWN,
    "upscaler": _OWN,
    "kandinsky22": _OWN,
    "kolors": _OWN,
    "language": _OF_THE_DEMO,
    "sd3": _OWN,
    "face_restorer": _OF_THE_DEMO,
}


def build(folder: Path, *names: str) -> Manifest:
    """Write the checkpoints of some builders, or of all, and the manifest of all."""
    for name in names or _BUILDERS:
        import_module(f"{_BUILDERS[name]}.{name}").build(folder)
    shutil.copy(HERE / "weights.yaml", folder)
    return load_manifest(folder / "weights.yaml")


def ensure(cache: Path) -> Path:
    """The path of a manifest whose folders exist: built when something of it has changed."""
    sources = [*HERE.glob("*.[py]*"), *demo.sources()]
    return demo.built_once(cache, "random", sources, build) / "weights.yaml"
