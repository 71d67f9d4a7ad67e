"""ControlNets for the small SD1.5 and SDXL checkpoints, strong enough to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel

from pipelines.demo.checkpoints.parts import fill

_SEEDS = {("sd15", "canny"): 61, ("sd15", "openpose"): 62, ("sdxl", "canny"): 63}

_HINT_CHANNELS = {"sd15": (16, 32, 48, 64, 96), "sdxl": (16, 32, 48, 64, 96, 96)}
"""The channels of the levels that read the control image; each level but the last halves it, down to the
size of the latents."""


def build(folder: Path) -> None:
    """Write ``controlnets`` under ``folder``, where the checkpoints have been built."""
    for (checkpoint, name), seed in _SEEDS.items():
        unet: Any = UNet2DConditionModel.from_pretrained(folder / checkpoint / "unet")
        network = ControlNetModel.from_unet(
            unet, load_weights_from_unet=False, conditioning_embedding_out_channels=_HINT_CHANNELS[checkpoint]
        )
        fill(network, seed)
        network.save_pretrained(folder / "controlnets" / f"{checkpoint}_{name}")
