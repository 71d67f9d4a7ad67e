"""A small upscaler of the kind of Real-ESRGAN's compact networks: doubles pixels, and a little more."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact

from pipelines.demo.checkpoints.parts import fill

_RESIDUE = 0.1
"""How strong the network's own contribution is beside the doubled pixels."""


def build(folder: Path) -> None:
    """Write ``upscaler.safetensors`` under ``folder``."""
    network = Compact(num_feat=8, num_conv=2, upscale=2)
    fill(network, 51)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.PReLU):
                module.weight.fill_(0.25)
        network.body[-1].weight.mul_(_RESIDUE)
    save_file(network.state_dict(), folder / "upscaler.safetensors")
