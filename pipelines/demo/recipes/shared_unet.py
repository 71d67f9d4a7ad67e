# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false
# (diffusers' networks carry their methods untyped.)
"""How SD1.5's network learns to draw what other text encoders read, and what of it SDXL and Kolors keep."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipelines.demo import sdxl_unet
from pipelines.demo.recipes.diffusion import velocity_loss
from pipelines.demo.recipes.encoded_world import EncodedWorld
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.recipes.sd15 import GUIDANCE, drawn_size, with_nothing
from pipelines.demo.training import Modules

Read = Callable[[Modules, list[str], random.Random], tuple[Tensor, Tensor]]
"""(networks, B texts, dice) -> (B, tokens, width) of the tokens and (B, width) of the whole."""


def unet(text_width: int, **config: object) -> torch.nn.Module:
    """Of its weights only those are trained that it does not share."""
    network = sdxl_unet.unet(text_width, **config).to(memory_format=torch.channels_last)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(sdxl_unet.is_own(name))
    return network


def own_tensors(modules: Modules, text_encoder: str) -> dict[str, Tensor]:
    """All of a text encoder, and what the UNet does not share."""
    encoder, network = modules[text_encoder].state_dict(), modules["unet"].state_dict()
    tensors = {f"{text_encoder}.{name}": each for name, each in encoder.items()}
    return tensors | {f"unet.{name}": each for name, each in network.items() if sdxl_unet.is_own(name)}


class Drawing:
    """The loss of the UNet; a picture of half the size stands for each: its latents are the same.

    Args:
        folder: beside it encoded pictures are kept.
    """

    def __init__(self, folder: Path, device: torch.device, read: Read) -> None:
        self._world = EncodedWorld(folder.with_name("sd15"), device)
        self._read = read

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice = random.Random(step)
        size = drawn_size(dice)
        batch = with_nothing(self._world.batch(size, dice, prompt), dice)
        states, pooled = self._read(modules, batch.texts, dice)
        network = modules["unet"]
        added = {"text_embeds": pooled, "time_ids": _doubled(size, len(batch.texts)).to(network.device)}
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states, added_cond_kwargs=added).sample,
            batch.latents.to(network.device),
            batch.others.to(network.device),
            step,
            guidance=GUIDANCE,
        )


def _doubled(size: tuple[int, int], count: int) -> Tensor:
    """(count, 6): original size, crop and target size of a picture twice as wide and high."""
    width, height = 2 * size[0], 2 * size[1]
    return torch.tensor([[height, width, 0, 0, height, width]]).expand(count, -1)
