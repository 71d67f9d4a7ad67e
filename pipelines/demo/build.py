"""Build the small checkpoints once and keep them."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from transformers.utils import logging as transformers_logging

_BUILDERS = (
    "kandinsky22", "kolors", "language", "safety_checker", "sd15", "sd3", "sdxl", "controlnets", "upscaler",
    "face_restorer",
)  # fmt: skip
"""Modules beside this one; ``build(folder: Path)`` of each writes the folders that weights.yaml names."""


def _version() -> str:
    """Names the folder: whoever changes a builder gets new checkpoints."""
    digest = hashlib.sha256(b"1")
    for path in sorted(Path(__file__).parent.glob("*.[py]*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def ensure(cache: Path) -> Path:
    """Build what is missing under ``cache``; return the path of a manifest whose folders exist.

    Safe against a kill and against a second process: everything is built aside and renamed at the end.
    """
    finished = cache / f"demo-{_version()}"
    if not finished.exists():
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="demo-", dir=cache))
        for name in _BUILDERS:
            import_module(f"pipelines.demo.{name}").build(aside)
        shutil.copy(Path(__file__).with_name("weights.yaml"), aside)
        try:
            aside.rename(finished)
        except OSError:
            if not finished.exists():
                raise
            shutil.rmtree(aside)
    return finished / "weights.yaml"


if __name__ == "__main__":
    transformers_logging.disable_progress_bar()
    print(ensure(Path(sys.argv[1])))
