"""The pipeline configurations and the CLIP vocabulary that ship with the project."""

from __future__ import annotations

from pathlib import Path

_CONFIGS = Path(__file__).with_name("configs")

CLIP_MERGES = _CONFIGS / "clip" / "merges.txt"
"""The merges of all published CLIP tokenizers, a line each."""


def configuration(name: str) -> Path:
    """The folder of a configuration, in diffusers' layout without weights and vocabularies.

    Raises:
        KeyError: none of that name ships.
    """
    names = {folder.name for folder in _CONFIGS.iterdir() if folder.is_dir()} - {"clip"}
    if name not in names:
        raise KeyError(f"{name} is none of {', '.join(sorted(names))}")
    return _CONFIGS / name
