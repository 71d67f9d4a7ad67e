"""The tensors that a network has: their names in diffusers and in the original releases, and their shapes.

The layouts in this folder are written out from a network's configuration. Recognition compares a file's
header with them, and opening takes the file's tensors by them: what the one accepts, the other finds.
Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor of a network.

    Attributes:
        name: its name in diffusers or transformers.
        original: its name in the original releases, without the network's own prefix.
        shape: its shape in diffusers or transformers.
    """

    name: str
    original: str
    shape: tuple[int, ...]


def normalisation(name: str, original: str, width: int) -> Iterator[Expected]:
    """Scale and shift of a normalisation."""
    for kind in ("weight", "bias"):
        yield Expected(f"{name}.{kind}", f"{original}.{kind}", (width,))


def linear(name: str, original: str, read: int, width: int, *, bias: bool = True) -> Iterator[Expected]:
    """A linear layer from ``read`` numbers to ``width``."""
    yield Expected(f"{name}.weight", f"{original}.weight", (width, read))
    if bias:
        yield Expected(f"{name}.bias", f"{original}.bias", (width,))


def convolution(name: str, original: str, read: int, width: int, kernel: int = 3) -> Iterator[Expected]:
    """A convolution from ``read`` channels to ``width``."""
    yield Expected(f"{name}.weight", f"{original}.weight", (width, read, kernel, kernel))
    yield Expected(f"{name}.bias", f"{original}.bias", (width,))
