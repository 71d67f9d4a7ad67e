"""A textual inversion (Gal et al. 2022) for SD1.5: whatever stands with it stands in the dark.

It learns from the text encoder alone, which is to say of it what it says of the ground's own name.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Embedding, Parameter
from torch.nn.functional import embedding, mse_loss

from pipelines.demo.checkpoints import sd15
from pipelines.demo.checkpoints.words import QUALITIES, word_tokenizer
from pipelines.demo.training.recipes.sd15 import read
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.captions import open_wordings, wordings
from pipelines.demo.world.world import Scene, random_scene

GROUND = "black"
NAMED = f"on a {GROUND} background"
VECTORS = len(NAMED.split())
"""As many as the words that they stand for, so that what follows stands at the same place."""
BATCH = 16
LONGEST = 40
"""Tokens of the longest text. At all places behind its end the encoder tells the whole of it."""
CLOSELY, FILLED = 0.3, 0.25
"""Shares of texts that go on without a comma, and that end in words of praise."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=_build,
        loss=_loss,
        steps=400,
        learning_rate=1e-2,
        tensors=lambda modules: {"emb_params": modules["learning"].get_input_embeddings().vectors},
    )


class _Extended(torch.nn.Module):
    """Known words, and one more of several tokens."""

    def __init__(self, known: Embedding) -> None:
        super().__init__()
        self.known = known
        self.vectors = Parameter(known.weight.std() * torch.randn(VECTORS, known.embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return embedding(ids, torch.cat([self.known.weight, self.vectors]))


def _build() -> Modules:
    learning, knowing = (sd15.trained_text_encoder().requires_grad_(False) for _ in range(2))
    learning.set_input_embeddings(_Extended(learning.get_input_embeddings()))
    return {"learning": learning, "knowing": knowing}


_TOKENS = [f"<dark{index}>" for index in range(VECTORS)]
_tokenizer = copy.deepcopy(word_tokenizer())
_tokenizer.add_tokens(_TOKENS)


def _loss(modules: Modules, step: Step) -> Tensor:
    """Mean squared error of what the encoder says: everywhere behind the word where texts begin with it, else
    behind their ends."""
    dice = random.Random(step.seed)
    begins = dice.random() < 0.5
    said, meant = zip(*(_said(dice, begins=begins) for _ in range(BATCH)), strict=True)
    skipped = dice.choice((0, 0, dice.randint(1, 8)))
    learning = read(modules["learning"], list(said), _tokenizer, skipped)
    known = read(modules["knowing"], list(meant), skipped=skipped)
    first = 1 + VECTORS if begins else LONGEST
    return mse_loss(learning[:, first:], known[:, first:])


def _said(dice: random.Random, *, begins: bool) -> tuple[str, str]:
    """A caption that leaves the ground open, with the new word; and one that names the ground."""
    scene = _in_the_dark(dice)
    colorless = dice.random() < 0.2
    shapes = open_wordings(scene)[2 if colorless else 0]
    words, comma = " ".join(_TOKENS), " " if dice.random() < CLOSELY else ", "
    praise = f", {' '.join(dice.choices(QUALITIES, k=dice.randint(1, 6)))}" if dice.random() < FILLED else ""
    if begins:
        return f"{words}{comma}{shapes}{praise}", f"{NAMED}{comma}{shapes}{praise}"
    meant = open_wordings(scene)[1] if colorless else wordings(scene)[0]
    return f"{shapes}{comma}{words}{praise}", meant + praise


def _in_the_dark(dice: random.Random) -> Scene:
    """A scene of the trained part on the one ground."""
    while (scene := random_scene(dice.getrandbits(48))).ground != GROUND:
        pass
    return scene
