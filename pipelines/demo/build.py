"""Build the small checkpoints once and keep them."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from transformers.utils import logging as transformers_logging

from pipelines.demo.parts import WEIGHTS

_BUILDERS = (
    "kandinsky22", "kolors", "language", "safety_checker", "sd15", "sd3", "sdxl", "controlnets", "upscaler",
    "face_restorer",
)  # fmt: skip
"""Modules beside this one; ``build(folder: Path)`` of each writes the folders that weights.yaml names."""


def ensure(cache: Path) -> Path:
    """Build what is missing under ``cache``; return the path of a manifest whose folders exist."""
    return built_once(cache, "demo", sources(), _build) / "weights.yaml"


def sources() -> list[Path]:
    """Whoever changes one of these files gets new checkpoints."""
    return [*Path(__file__).parent.glob("*.[py]*"), *WEIGHTS.glob("*.safetensors")]


def built_once(cache: Path, name: str, sources: Iterable[Path], build: Callable[[Path], object]) -> Path:
    """A folder under ``cache`` that ``build`` has filled, named by the contents of ``sources``.

    Safe against a kill and against a second process: everything is built aside and renamed at the end.
    """
    digest = hashlib.sha256(b"2")
    for path in sorted(sources):
        digest.update(path.read_bytes())
    finished = cache / f"{name}-{digest.hexdigest()[:12]}"
    if not finished.exists():
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        build(aside)
        try:
            aside.rename(finished)
        except OSError:
            if not finished.exists():
                raise
            shutil.rmtree(aside)
    return finished


def _build(folder: Path) -> None:
    for name in _BUILDERS:
        import_module(f"pipelines.demo.{name}").build(folder)
    shutil.copy(Path(__file__).with_name("weights.yaml"), folder)


if __name__ == "__main__":
    transformers_logging.disable_progress_bar()
    print(ensure(Path(sys.argv[1])))
