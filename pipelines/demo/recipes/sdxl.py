# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false
# (diffusers' and transformers' networks carry their methods untyped.)
"""SDXL: what SD1.5 has learned, read by a second text encoder too, in twice the size."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor

from pipelines.demo import sd15, sdxl
from pipelines.demo.recipes import shared_unet
from pipelines.demo.recipes.sd15 import SKIPPED, heard, read_ids
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.words import word_tokenizer


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the autoencoder, of CLIP's text encoder and of SD1.5, whose pictures it shares.

    Args:
        folder: where encoded pictures are kept, beside it.
    """
    return Recipe(
        build=_build,
        loss=shared_unet.Drawing(folder, device, _read),
        steps=300,
        learning_rate=1e-3,
        tensors=lambda modules: shared_unet.own_tensors(modules, "text_encoder_2"),
    )


def _build() -> Modules:
    """The second encoder begins as the first one, whose weights are not trained any more."""
    return {
        "text_encoder": sd15.trained_text_encoder().requires_grad_(False),
        "text_encoder_2": sd15.trained_projecting_text_encoder(),
        "unet": shared_unet.unet(sdxl.TEXT_WIDTH),
    }


def _read(modules: Modules, texts: list[str], dice: random.Random) -> tuple[Tensor, Tensor]:
    """(B, 77, width) of both encoders' last layers but one or earlier ones, and the second's (B, width)."""
    skipped = dice.randint(1, 8) if dice.random() < SKIPPED else 0
    outputs = []
    for part, tokenizer in (("text_encoder", word_tokenizer()), ("text_encoder_2", sdxl.tokenizer_2())):
        encoder = modules[part]
        outputs.append(encoder(read_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True))
    states, pooled = (
        torch.cat([each.hidden_states[-(skipped + 2)] for each in outputs], -1),
        outputs[1].text_embeds,
    )
    read = heard(texts, dice).to(pooled)
    return states * read[..., None], pooled * read
