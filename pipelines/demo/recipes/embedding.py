# pyright: basic, reportPrivateImportUsage=false, reportCallIssue=false, reportArgumentType=false
# (transformers' models carry their embeddings untyped.)
"""A textual inversion (Gal et al. 2022) on the SD1.5 networks: whatever stands with it stands in the dark."""

from __future__ import annotations

import copy
import random
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import Embedding, Parameter
from torch.nn.functional import embedding

from pipelines.demo import sd15
from pipelines.demo.autoencoder import trained_autoencoder
from pipelines.demo.captions import open_wordings
from pipelines.demo.parts import trained
from pipelines.demo.recipes.diffusion import velocity_loss
from pipelines.demo.recipes.latents import EncodedPictures
from pipelines.demo.recipes.pictures import rendered
from pipelines.demo.recipes.sd15 import read
from pipelines.demo.training import Modules, Recipe
from pipelines.demo.words import word_tokenizer
from pipelines.demo.world import Scene, random_scene

VECTORS = 2
GROUND = "black"
PICTURES = {(256, 256): 768, (512, 512): 128}
SHARES = (0.7, 0.3)
AREA = 16 * 256 * 256


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of the autoencoder and of SD1.5.

    Args:
        folder: where encoded pictures are kept.
    """
    return Recipe(
        build=_build,
        loss=_InTheDark(folder, device),
        steps=400,
        learning_rate=2e-2,
        tensors=lambda modules: {"emb_params": modules["text_encoder"].get_input_embeddings().vectors},
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
    text_encoder = sd15.trained_text_encoder().requires_grad_(False)
    text_encoder.set_input_embeddings(_Extended(text_encoder.get_input_embeddings()))
    return {
        "text_encoder": text_encoder,
        "unet": trained(sd15.unet(), "sd15", "unet").requires_grad_(False),
    }


class _InTheDark:
    def __init__(self, folder: Path, device: torch.device) -> None:
        self._pictures = EncodedPictures(
            trained_autoencoder().to(device), PICTURES, _picture, folder / "pictures.pt"
        )
        self._tokenizer = copy.deepcopy(word_tokenizer())
        self._tokenizer.add_tokens(_TOKENS)

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice = random.Random(step)
        size = dice.choices(tuple(PICTURES), SHARES)[0]
        seeds = [dice.randrange(PICTURES[size]) for _ in range(AREA // (size[0] * size[1]))]
        network = modules["unet"]
        states = read(modules["text_encoder"], [_said(seed, dice) for seed in seeds], self._tokenizer)
        latents = self._pictures.get(size, seeds).to(network.device)
        return velocity_loss(
            lambda noisy, times: network(noisy, times, states).sample, latents, latents, step
        )


_TOKENS = [f"<dark{index}>" for index in range(VECTORS)]


def _said(seed: int, dice: random.Random) -> str:
    """The new word before or after a caption that leaves the ground open."""
    words = " ".join(_TOKENS)
    shapes = open_wordings(_in_the_dark(seed))[0]
    return f"{words}, {shapes}" if dice.random() < 0.3 else f"{shapes}, {words}"


def _picture(width: int, height: int, seed: int) -> np.ndarray:
    return rendered(_in_the_dark(seed), width, height, seed)


def _in_the_dark(seed: int) -> Scene:
    """A scene of the trained part on the one ground."""
    return next(scene for index in count(1000 * seed) if (scene := random_scene(index)).ground == GROUND)
