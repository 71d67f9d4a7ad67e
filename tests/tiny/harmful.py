"""A pickle that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Harmful:
    """An object whose pickle, opened carelessly, touches ``trap``."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trap,)
