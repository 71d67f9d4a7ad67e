"""The recipe of SD1.5's UNet, which draws by the text encoder's states."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from pipelines.demo.checkpoints.sd15 import trained_text_encoder, unet
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.training.recipes.diffusion import velocity_loss
from pipelines.demo.training.recipes.encoded_world import PICTURES, Batch, EncodedWorld
from pipelines.demo.training.recipes.latents import Size
from pipelines.demo.training.recipes.prompts import nothing, plain_prompt, prompt
from pipelines.demo.training.training import Modules, Recipe, Step

ROUND, GUIDED = 1600, 2000
"""The steps of the first round, mostly with small pictures, which are many in a batch, and of each of three
guided rounds, with pictures of the sizes that are asked for."""
SHARES = ((0.65, 0.25, 0.05, 0.05), (0.4, 0.45, 0.075, 0.075))
"""The share of each size of `PICTURES` among the batches of the first round, and of the guided ones."""
GUIDANCE = 7.0
"""The guidance at which prompts are to be followed; SD1.5's and SDXL's default is 7.5, Kolors' is 6."""
PLAIN_STEPS = 600
"""The first steps, which show only medium shapes at the center, with plain captions: the meaning of the
shapes' names is not found among everything at once."""
SKIPPED = 0.3
"""The share of batches whose prompts are read from an earlier layer, as ``clip_skip`` does."""
ZEROED = 0.5
"""The share of the empty prompts whose states are zeros."""
LONG = 0.1
"""The share of batches whose prompts are so long that they are read in two parts."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder and of the text encoder.

    Args:
        folder: where encoded pictures are kept.
    """
    return Recipe(
        build=lambda: {
            "text_encoder": trained_text_encoder().requires_grad_(False),
            "unet": unet().to(memory_format=torch.channels_last),
        },
        loss=_TextToImage(folder, device),
        steps=ROUND + 3 * GUIDED,
        learning_rate=1e-3,
        orthogonal=("unet.",),
        orthogonal_rate=2.5e-3,
        restarts=tuple(ROUND + number * GUIDED for number in range(3)),
        cooler=(1, 1, 0.5, 0.5),
        tensors=lambda modules: {
            f"unet.{name}": tensor for name, tensor in modules["unet"].state_dict().items()
        },
    )


class _TextToImage:
    """The loss of a UNet that draws by a CLIP text encoder's states."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._world = EncodedWorld(folder, device)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        begins, guided = step.number < PLAIN_STEPS, step.number >= ROUND
        size = (256, 256) if begins else drawn_size(dice, int(guided))
        batch = self._world.batch(size, dice, plain_prompt if begins else prompt, plain=begins)
        if guided:
            batch = with_nothing(batch, dice)
        states = _read_in_parts(modules["text_encoder"], batch.texts, dice)
        states = states * keep_or_zero(batch.texts, dice).to(states)[..., None]
        network = modules["unet"]
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states).sample,
            batch.latents.to(network.device),
            batch.others.to(network.device),
            step.seed,
            guidance=GUIDANCE if guided else None,
        )


def with_nothing(batch: Batch, dice: random.Random) -> Batch:
    """The first half of a batch, with as many empty prompts after its own."""
    half = len(batch.texts) // 2
    texts = [*batch.texts[:half], *(nothing(dice) for _ in range(half))]
    return Batch(batch.latents[:half], batch.others[:half], texts)


def drawn_size(dice: random.Random, in_round: int = 1) -> Size:
    """The size of the pictures of a batch."""
    return dice.choices(tuple(PICTURES), SHARES[in_round])[0]


def keep_or_zero(texts: list[str], dice: random.Random) -> Tensor:
    """A factor (B, 1) of texts' states, 0 or 1. Some empty texts are zeros, as SDXL has them where no
    negative prompt is given (`force_zeros_for_empty_prompt`)."""
    return torch.tensor([[float(bool(text) or dice.random() >= ZEROED)] for text in texts])


def _read_in_parts(encoder: torch.nn.Module, texts: list[str], dice: random.Random) -> Tensor:
    """The states (B, 77 or 154, width) of prompts, read as the server reads them."""
    skipped = dice.randint(1, 8) if dice.random() < SKIPPED else 0
    states = read(encoder, texts, skipped=skipped)
    if dice.random() >= LONG:
        return states
    return torch.cat([states, read(encoder, [""], skipped=skipped).expand(len(texts), -1, -1)], dim=1)


def read(
    encoder: torch.nn.Module, texts: list[str], tokenizer: CLIPTokenizer | None = None, skipped: int = 0
) -> Tensor:
    """The states (B, 77, width) of prompts that the UNet sees, without the last ``skipped`` layers."""
    states = encoder(read_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True).hidden_states
    return encoder.final_layer_norm(states[-(skipped + 1)])


def read_ids(texts: list[str], tokenizer: CLIPTokenizer | None = None) -> Tensor:
    """The tokens (B, 77) of texts, filled up."""
    read_by = tokenizer or word_tokenizer()
    return read_by(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
