"""The pipeline configurations and the CLIP vocabulary that ship with the project. Torch-free."""

from __future__ import annotations

from pathlib import Path

import pipelines

_CONFIGS = Path(pipelines.__path__[0]) / "checkpoints" / "configs"
"""They lie with the code that opens checkpoints; an installation that does not draw lacks them."""

CLIP_MERGES = _CONFIGS / "clip" / "merges.txt"
"""The merges of all published CLIP tokenizers, a line each."""


def configuration(name: str) -> Path:
    """The folder of a configuration, in diffusers' layout without weights and vocabularies.

    Raises:
        KeyError: none of that name ships.
    """
    folders = _CONFIGS.iterdir() if _CONFIGS.is_dir() else ()
    names = {folder.name for folder in folders if folder.is_dir()} - {"clip"}
    if name not in names:
        raise KeyError(f"{name} is none of {', '.join(sorted(names))}")
    return _CONFIGS / name
