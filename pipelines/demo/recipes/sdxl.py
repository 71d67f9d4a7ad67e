# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false
# (diffusers' and transformers' networks carry their methods untyped.)
"""SDXL: what SD1.5 has learned, read by a second text encoder too, in twice the size."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipelines.demo import sd15, sdxl
from pipelines.demo.recipes import shared_unet
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.recipes.sd15 import SKIPPED, heard, read, read_ids
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.words import word_tokenizer
from pipelines.demo.world import random_scene

TEXTS = 32
"""In a batch of those that are only read."""
READING, DRAWING = 1000, 300
"""Steps: first the second text encoder learns what the first one says, then both lead the UNet."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the autoencoder, of CLIP's text encoder and of SD1.5, whose pictures it shares.

    Args:
        folder: where encoded pictures are kept, beside it.
    """
    drawing = shared_unet.Drawing(folder, device, _read)
    return Recipe(
        build=_build,
        loss=lambda modules, step: _reading(modules, step) if step < READING else drawing(modules, step),
        steps=READING + DRAWING,
        learning_rate=1e-3,
        orthogonal=("encoder.layers",),
        orthogonal_rate=2e-3,
        restarts=(READING,),
        cooler=(1, 0.1),
        tensors=lambda modules: shared_unet.own_tensors(modules, "text_encoder_2"),
    )


def _build() -> Modules:
    """The second encoder begins as the first one, whose weights are not trained any more."""
    return {
        "text_encoder": sd15.trained_text_encoder().requires_grad_(False),
        "text_encoder_2": sd15.trained_projecting_text_encoder(),
        "unet": shared_unet.unet(sdxl.TEXT_WIDTH),
    }


def _reading(modules: Modules, step: int) -> Tensor:
    """Error of the second encoder's last layer but one, or an earlier one: it is to say what SD1.5 reads."""
    dice = random.Random(step)
    texts = [prompt(random_scene(dice.getrandbits(48)), dice).text for _ in range(TEXTS)]
    with torch.no_grad():
        wanted = read(modules["text_encoder"], texts)
    encoder = modules["text_encoder_2"]
    ids = read_ids(texts, sdxl.tokenizer_2()).to(encoder.device)
    skipped = dice.choice((0, dice.randint(1, 8)))
    said = encoder(ids, output_hidden_states=True).hidden_states[-(skipped + 2)]
    return mse_loss(said, wanted)


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
    rows = heard(texts, dice).to(pooled)
    return states * rows[..., None], pooled * rows
