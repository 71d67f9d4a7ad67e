"""A small upscaler of the kind of Real-ESRGAN's compact networks."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact

from pipelines.demo.checkpoints.parts import load_weights


def build(folder: Path) -> None:
    """Write ``upscaler.safetensors`` under ``folder``."""
    network = upscaler()
    network.load_state_dict(load_weights("upscaler"))
    save_file(network.state_dict(), folder / "upscaler.safetensors")


def upscaler() -> Compact:
    """The untrained upscaler, which makes pictures twice as wide and high."""
    return Compact(num_feat=16, num_conv=4, upscale=2)
