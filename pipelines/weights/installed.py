"""Whether what draws is installed on this machine, found without importing any of it. Torch-free."""

from __future__ import annotations

from importlib.util import find_spec

ENGINE = ("torch", "torchvision", "diffusers", "transformers", "safetensors")
"""Packages of the extra ``engine`` without which nothing is drawn."""

HOW_TO_INSTALL = "pip install 'understudy-server[engine]'"


def engine_missing() -> str | None:
    """The sentence that says that nothing can be drawn here, and what to install; None where all is there."""
    if all(_is_there(package) for package in ENGINE):
        return None
    return f"no engine on this machine: what draws is not installed ({HOW_TO_INSTALL})"


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False
