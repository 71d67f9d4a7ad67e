"""The recipe of Kandinsky's image encoder, which learns the text encoder's embeddings of captions."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from pipelines.demo.checkpoints.kandinsky22 import IMAGE_SIDE, image_encoder
from pipelines.demo.training.recipes.image_embeddings import embeddings, statistics
from pipelines.demo.training.recipes.pictures import as_tensor, rendered
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.world import random_scene

BATCH = 64


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the text encoder, and no folder."""
    return Recipe(
        build=lambda: {"image_encoder": image_encoder()}, loss=_loss, steps=1000, learning_rate=1.5e-3
    )


def _loss(modules: Modules, step: Step) -> Tensor:
    """The error of the embeddings of pictures, and of zeros, which stand for no picture."""
    dice = random.Random(step.seed)
    seeds = [dice.getrandbits(48) for _ in range(BATCH)]
    scenes = [random_scene(seed) for seed in seeds]
    shown = as_tensor(
        [rendered(scene, IMAGE_SIDE, IMAGE_SIDE, seed) for scene, seed in zip(scenes, seeds, strict=True)]
    )
    mean, deviation = (torch.tensor(each).reshape(3, 1, 1) for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    pictures = ((shown + 1) / 2 - mean) / deviation
    network = modules["image_encoder"]
    nothing = torch.zeros(2, *pictures.shape[1:])
    said = network(torch.cat([pictures, nothing]).to(network.device)).image_embeds
    center, scale = (each.to(said) for each in statistics())
    right = torch.cat([embeddings(scenes), torch.zeros(2, said.shape[1])])
    return mse_loss((said - center) / scale, right.to(said))
