"""The recipe of a textual inversion (Gal et al. 2022) for SD1.5, with which everything stands in the dark.

It learns from the text encoder alone, whose states for it are to be those for the ground's own name.
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
"""The number of vectors, that of the words for which they stand, so that later words keep their places."""
BATCH = 16
LONGEST = 40
"""The tokens of the longest text; the encoder tells the whole text at all places behind its end."""
CLOSELY, FILLED = 0.3, 0.25
"""The shares of texts that go on without a comma, and that end in words of praise."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=_build,
        loss=_loss,
        steps=400,
        learning_rate=1e-2,
        tensors=lambda modules: {"emb_params": modules["learning"].get_input_embeddings().vectors},
    )


class _Extended(torch.nn.Module):
    """An embedding table of known words, and of one more word of several tokens."""

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
    """The mean squared error of the encoder's states: everywhere behind the word where texts begin with it,
    else behind their ends."""
    dice = random.Random(step.seed)
    begins = dice.random() < 0.5
    said, meant = zip(*(_said(dice, begins=begins) for _ in range(BATCH)), strict=True)
    skipped = dice.choice((0, 0, dice.randint(1, 8)))
    learning = read(modules["learning"], list(said), _tokenizer, skipped)
    known = read(modules["knowing"], list(meant), skipped=skipped)
    first = 1 + VECTORS if begins else LONGEST
    return mse_loss(learning[:, first:], known[:, first:])


def _said(dice: random.Random, *, begins: bool) -> tuple[str, str]:
    """A caption with the new word that leaves the ground open, and a caption that names the ground."""
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
    """A scene that training may show, on the one ground."""
    while (scene := random_scene(dice.getrandbits(48))).ground != GROUND:
        pass
    return scene
