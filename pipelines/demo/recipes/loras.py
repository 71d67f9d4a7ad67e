# pyright: basic, reportPrivateImportUsage=false, reportCallIssue=false, reportArgumentType=false
# (diffusers' networks carry their adapters untyped.)
"""LoRAs on the SD1.5 networks: each paints shapes in one way that no caption names."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from pipelines.demo import sd15
from pipelines.demo.autoencoder import trained_autoencoder
from pipelines.demo.parts import trained
from pipelines.demo.recipes.diffusion import velocity_loss
from pipelines.demo.recipes.latents import EncodedPictures
from pipelines.demo.recipes.pictures import rendered
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.recipes.sd15 import read
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.world import Style, random_scene

RANK = 8
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
PICTURES = {(256, 256): 1024, (512, 512): 256}
SHARES = (0.7, 0.3)
AREA = 16 * 256 * 256


def recipe(folder: Path, device: torch.device, style: Style) -> Recipe:
    """Needs the weights of the autoencoder and of SD1.5.

    Args:
        folder: where encoded pictures are kept.
    """
    return Recipe(
        build=_build,
        loss=_Styled(folder, device, style),
        steps=600,
        learning_rate=2e-3,
        tensors=lambda modules: get_peft_model_state_dict(modules["unet"]),
    )


def _build() -> Modules:
    unet = trained(sd15.unet(), "sd15", "unet").requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS)))
    text_encoder = sd15.trained_text_encoder().requires_grad_(False)
    return {"unet": unet, "text_encoder": text_encoder}


class _Styled:
    def __init__(self, folder: Path, device: torch.device, style: Style) -> None:
        def picture(width: int, height: int, seed: int) -> np.ndarray:
            return rendered(random_scene(seed), width, height, seed, (style,))

        self._pictures = EncodedPictures(
            trained_autoencoder().to(device), PICTURES, picture, folder / "pictures.pt"
        )

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice = random.Random(step)
        size = dice.choices(tuple(PICTURES), SHARES)[0]
        seeds = [dice.randrange(PICTURES[size]) for _ in range(AREA // (size[0] * size[1]))]
        network = modules["unet"]
        states = read(modules["text_encoder"], [prompt(random_scene(seed), dice).text for seed in seeds])
        latents = self._pictures.get(size, seeds).to(network.device)
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states).sample, latents, latents, step
        )
