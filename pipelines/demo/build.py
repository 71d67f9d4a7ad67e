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

from pipelines.checkpoints import tokenizers
from pipelines.demo import checkpoints, world
from pipelines.demo.checkpoints.parts import WEIGHTS
from pipelines.prompts import languages

_BUILDERS = (
    "kandinsky22", "kolors", "language", "safety_checker", "sd15", "sd3", "sdxl", "controlnets", "upscaler",
    "face_restorer",
)  # fmt: skip
"""Modules of `checkpoints`; ``build(folder: Path)`` of each writes the folders that weights.yaml names."""

_MANIFEST = Path(__file__).with_name("weights.yaml")

_LANGUAGES = Path(languages.__file__)
"""The file whose language codes are tokens of the small translator."""


def ensure(cache: Path) -> Path:
    """Build what is missing under ``cache``; return the path of a manifest whose folders exist."""
    return built_once(cache, "demo", sources(), _build) / "weights.yaml"


def sources() -> list[Path]:
    """The files that checkpoints are made of: after a change of one of them all are built anew."""
    modules = (path for room in (checkpoints, world) for path in Path(room.__path__[0]).glob("*.py"))
    return [*modules, Path(tokenizers.__file__), _LANGUAGES, _MANIFEST, *WEIGHTS.glob("*.safetensors")]


def built_once(cache: Path, name: str, sources: Iterable[Path], build: Callable[[Path], object]) -> Path:
    """A folder under ``cache`` that ``build`` has filled, named by the contents of ``sources``.

    Safe against a kill and against a second process: everything is built aside and renamed at the end.
    """
    # The number of the layout on disk; raise it to have everything built anew.
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
        import_module(f"pipelines.demo.checkpoints.{name}").build(folder)
    shutil.copy(_MANIFEST, folder)


if __name__ == "__main__":
    transformers_logging.disable_progress_bar()
    print(ensure(Path(sys.argv[1])))
