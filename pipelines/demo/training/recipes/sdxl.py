"""The recipe of SDXL, which draws as SD1.5 has learned to, by two text encoders and in twice the size."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipelines.demo.checkpoints import sd15, sdxl, sdxl_unet
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.training.recipes.diffusion import velocity_loss
from pipelines.demo.training.recipes.encoded_world import EncodedWorld
from pipelines.demo.training.recipes.prompts import prompt
from pipelines.demo.training.recipes.sd15 import (
    GUIDANCE,
    SKIPPED,
    drawn_size,
    keep_or_zero,
    read,
    read_ids,
    with_nothing,
)
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import random_scene

TEXTS = 32
"""The texts in a batch that is only read."""
READING, DRAWING = 1000, 300
"""The steps of the rounds: first the second text encoder learns the states of the first one, then the UNet
learns to draw by both."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder, of CLIP's text encoder and of SD1.5.

    Args:
        folder: encoded pictures are kept beside it, since SD1.5 has the same ones.
    """
    drawing = _Drawing(folder.with_name("sd15"), device)
    return Recipe(
        build=_build,
        loss=lambda modules, step: (_reading if step.number < READING else drawing)(modules, step),
        steps=READING + DRAWING,
        learning_rate=1e-3,
        orthogonal=("encoder.layers",),
        orthogonal_rate=2e-3,
        restarts=(READING,),
        cooler=(1, 0.1),
        tensors=_tensors,
    )


def _build() -> Modules:
    """The second encoder, which begins as the first one, whose weights are not trained any more; and the
    UNet, of which only the weights are trained that it does not share."""
    network = sdxl_unet.unet(sdxl.TEXT_WIDTH).to(memory_format=torch.channels_last)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(sdxl_unet.is_own(name))
    return {
        "text_encoder": sd15.trained_text_encoder().requires_grad_(False),
        "text_encoder_2": sd15.trained_projecting_text_encoder(),
        "unet": network,
    }


def _tensors(modules: Modules) -> dict[str, Tensor]:
    """All tensors of the second text encoder, and those of the UNet that it does not share."""
    encoder, network = modules["text_encoder_2"].state_dict(), modules["unet"].state_dict()
    own = {f"unet.{name}": tensor for name, tensor in network.items() if sdxl_unet.is_own(name)}
    return {f"text_encoder_2.{name}": tensor for name, tensor in encoder.items()} | own


def _reading(modules: Modules, step: Step) -> Tensor:
    """The error of the second encoder's last layer but one, or of an earlier one, from SD1.5's states."""
    dice = random.Random(step.seed)
    texts = [prompt(random_scene(dice.getrandbits(48)), dice).text for _ in range(TEXTS)]
    with torch.no_grad():
        wanted = read(modules["text_encoder"], texts)
    encoder = modules["text_encoder_2"]
    ids = read_ids(texts, sdxl.tokenizer_2()).to(encoder.device)
    skipped = dice.choice((0, dice.randint(1, 8)))
    said = encoder(ids, output_hidden_states=True).hidden_states[-(skipped + 2)]
    return mse_loss(said, wanted)


class _Drawing:
    """The loss of the UNet; a picture of half the size stands for each, with the same latents.

    Args:
        folder: where encoded pictures are kept.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._world = EncodedWorld(folder, device)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        size = drawn_size(dice)
        batch = with_nothing(self._world.batch(size, dice, prompt), dice)
        states, pooled = _read(modules, batch.texts, dice)
        network = modules["unet"]
        added = {"text_embeds": pooled, "time_ids": _doubled(size, len(batch.texts)).to(network.device)}
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states, added_cond_kwargs=added).sample,
            batch.latents.to(network.device),
            batch.others.to(network.device),
            step.seed,
            guidance=GUIDANCE,
        )


def _read(modules: Modules, texts: list[str], dice: random.Random) -> tuple[Tensor, Tensor]:
    """The (B, 77, width) states of both encoders' last layers but one, or of earlier ones, and the second
    one's (B, width) embeddings."""
    skipped = dice.randint(1, 8) if dice.random() < SKIPPED else 0
    outputs = []
    for part, tokenizer in (("text_encoder", word_tokenizer()), ("text_encoder_2", sdxl.tokenizer_2())):
        encoder = modules[part]
        outputs.append(encoder(read_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True))
    states, pooled = (
        torch.cat([each.hidden_states[-(skipped + 2)] for each in outputs], -1),
        outputs[1].text_embeds,
    )
    rows = keep_or_zero(texts, dice).to(pooled)
    return states * rows[..., None], pooled * rows


def _doubled(size: tuple[int, int], count: int) -> Tensor:
    """The (count, 6) original size, crop and target size of a picture that is twice as wide and high."""
    width, height = 2 * size[0], 2 * size[1]
    return torch.tensor([[height, width, 0, 0, height, width]]).expand(count, -1)
