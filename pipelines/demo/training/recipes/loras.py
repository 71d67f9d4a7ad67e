"""The recipes of LoRAs on the SD1.5 networks, each of which paints shapes in a way that no caption names."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from pipelines.demo.checkpoints import sd15
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.training.recipes.diffusion import velocity_loss
from pipelines.demo.training.recipes.latents import EncodedPictures, Size
from pipelines.demo.training.recipes.pictures import rendered
from pipelines.demo.training.recipes.prompts import nothing, prompt
from pipelines.demo.training.recipes.sd15 import GUIDANCE, read
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import Style, random_scene

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv_in", "conv1", "conv2", "conv", "conv_out")
AREA = 16 * 256 * 256
"""The pixels of a batch, whatever the size of its pictures; each picture is in it twice."""


@dataclass(frozen=True, slots=True)
class _Way:
    """The way to learn a style: names of layers, and sizes of pictures with their shares."""

    rank: int
    layers: tuple[str, ...]
    pictures: Mapping[Size, int]
    shares: tuple[float, ...]
    steps: int


_WAYS: Mapping[Style, _Way] = {
    # Attention cannot count rows and only tinted the shape. Stripes are hardly wider than a latent in small
    # pictures.
    "striped": _Way(16, CONVOLUTIONS, {(256, 256): 512, (512, 512): 640}, (0.3, 0.7), 1200),
    "outlined": _Way(8, ATTENTION, {(256, 256): 1024, (512, 512): 256}, (0.7, 0.3), 600),
}


def recipe(folder: Path, device: torch.device, style: Style) -> Recipe:
    """The recipe; it needs the weights of the autoencoder and of SD1.5.

    Args:
        folder: where encoded pictures are kept.
    """
    way = _WAYS[style]
    return Recipe(
        build=partial(_build, way),
        loss=_Styled(folder, device, style),
        steps=way.steps,
        learning_rate=2e-3,
        tensors=lambda modules: get_peft_model_state_dict(modules["unet"]),
    )


def _build(way: _Way) -> Modules:
    unet = load_trained(sd15.unet(), "sd15", "unet").requires_grad_(False)
    unet.add_adapter(LoraConfig(r=way.rank, lora_alpha=way.rank, target_modules=list(way.layers)))
    return {"unet": unet, "text_encoder": sd15.trained_text_encoder().requires_grad_(False)}


class _Styled:
    def __init__(self, folder: Path, device: torch.device, style: Style) -> None:
        def picture(width: int, height: int, seed: int) -> np.ndarray:
            return rendered(random_scene(seed), width, height, seed, (style,))

        self._way = _WAYS[style]
        self._pictures = EncodedPictures(
            trained_autoencoder().to(device), self._way.pictures, picture, folder / "pictures.pt"
        )

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        size = dice.choices(tuple(self._way.pictures), self._way.shares)[0]
        count = AREA // (size[0] * size[1]) // 2
        seeds = [dice.randrange(self._way.pictures[size]) for _ in range(count)]
        network = modules["unet"]
        texts = [prompt(random_scene(seed), dice).text for seed in seeds] + [nothing(dice) for _ in seeds]
        states = read(modules["text_encoder"], texts)
        latents = self._pictures.get(size, seeds).to(network.device)
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states).sample,
            latents,
            latents,
            step.seed,
            guidance=GUIDANCE,
        )
