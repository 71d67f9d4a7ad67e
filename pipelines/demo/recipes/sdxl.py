# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false
# (diffusers' and transformers' networks carry their methods untyped.)
"""SDXL: what SD1.5 has learned, read by a second text encoder too, in twice the size."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor

from pipelines.demo import sd15, sdxl, sdxl_unet
from pipelines.demo.recipes.diffusion import velocity_loss
from pipelines.demo.recipes.encoded_world import EncodedWorld
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.recipes.sd15 import SKIPPED, drawn_size, read_ids
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.words import word_tokenizer


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the autoencoder, of CLIP's text encoder and of SD1.5, whose pictures it shares.

    Args:
        folder: where encoded pictures are kept, beside it.
    """
    return Recipe(
        build=_build, loss=_Drawing(folder, device), steps=300, learning_rate=1e-3, tensors=_own_tensors
    )


def _build() -> Modules:
    """The second encoder begins as the first one, whose weights are not trained any more."""
    unet = sdxl_unet.unet(sdxl.TEXT_WIDTH).to(memory_format=torch.channels_last)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(sdxl_unet.is_own(name))
    return {
        "text_encoder": sd15.trained_text_encoder().requires_grad_(False),
        "text_encoder_2": sd15.trained_projecting_text_encoder(),
        "unet": unet,
    }


class _Drawing:
    """A picture of half the size stands for each: both autoencoders give the same latents."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._world = EncodedWorld(folder.with_name("sd15"), device)

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice = random.Random(step)
        size = drawn_size(dice)
        batch = self._world.batch(size, dice, prompt)
        skipped = dice.randint(1, 8) if dice.random() < SKIPPED else 0
        states, pooled = _read(modules, batch.texts, skipped)
        # Where no negative prompt is given, the server reads zeros (`force_zeros_for_empty_prompt`).
        heard = torch.tensor([[float(bool(text) or dice.random() < 0.3)] for text in batch.texts]).to(pooled)
        states, pooled = states * heard[..., None], pooled * heard
        network = modules["unet"]
        added = {"text_embeds": pooled, "time_ids": doubled(size, len(batch.texts)).to(network.device)}
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states, added_cond_kwargs=added).sample,
            batch.latents.to(network.device),
            batch.others.to(network.device),
            step,
        )


def _read(modules: Modules, texts: list[str], skipped: int) -> tuple[Tensor, Tensor]:
    """(B, 77, width) of both encoders' last layers but one, and the second's (B, width) of the whole."""
    outputs = []
    for part, tokenizer in (("text_encoder", word_tokenizer()), ("text_encoder_2", sdxl.tokenizer_2())):
        encoder = modules[part]
        outputs.append(encoder(read_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True))
    return torch.cat([each.hidden_states[-(skipped + 2)] for each in outputs], -1), outputs[1].text_embeds


def doubled(size: tuple[int, int], count: int) -> Tensor:
    """(count, 6): original size, crop and target size of a picture twice as wide and high."""
    width, height = 2 * size[0], 2 * size[1]
    return torch.tensor([[height, width, 0, 0, height, width]]).expand(count, -1)


def _own_tensors(modules: Modules) -> dict[str, Tensor]:
    """All of the second text encoder, and what the UNet does not share."""
    encoder, unet = modules["text_encoder_2"].state_dict(), modules["unet"].state_dict()
    tensors = {f"text_encoder_2.{name}": each for name, each in encoder.items()}
    return tensors | {f"unet.{name}": each for name, each in unet.items() if sdxl_unet.is_own(name)}
