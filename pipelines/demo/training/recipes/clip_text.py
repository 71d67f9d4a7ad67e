"""The recipe of the CLIP text encoder that families share, which learns to tell the words of captions."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict
from torch.nn.functional import cross_entropy

from pipelines.demo.checkpoints.sd15 import TEXT_WIDTH, text_encoder
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.training.recipes.prompts import prompt
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.palette import COLORS
from pipelines.demo.world.shapes import SHAPES
from pipelines.demo.world.world import AREAS, PLACES, random_scene

BATCH = 64
SHALLOWEST = 4
"""The number of layers after which the words are known: ``clip_skip`` leaves out up to eight of twelve."""

_UNSAID = ""
ANSWERS: dict[str, tuple[str, ...]] = {
    "ground": (_UNSAID, *COLORS),
    "color1": (_UNSAID, *COLORS),
    "shape1": (_UNSAID, *SHAPES),
    "color2": (_UNSAID, *COLORS),
    "shape2": (_UNSAID, *SHAPES),
    "size": (_UNSAID, *AREAS),
    "place": (_UNSAID, *PLACES),
}


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs no other weights, and no folder."""
    return Recipe(
        build=_build,
        loss=_loss,
        steps=1500,
        learning_rate=2e-3,
        tensors=lambda modules: {
            f"text_encoder.{name}": tensor for name, tensor in modules["text_encoder"].state_dict().items()
        },
    )


def _build() -> Modules:
    heads = {question: Linear(TEXT_WIDTH, len(answers)) for question, answers in ANSWERS.items()}
    return {"text_encoder": text_encoder(), "heads": ModuleDict(heads)}


def _loss(modules: Modules, step: Step) -> Tensor:
    """The cross-entropy of a caption's words, told from any token after its end and after any later layer."""
    encoder, heads, dice = modules["text_encoder"], modules["heads"], random.Random(step.seed)
    prompts = [prompt(random_scene(dice.getrandbits(48)), dice) for _ in range(BATCH)]
    read = word_tokenizer()(
        [said.text for said in prompts],
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    states = encoder(read.input_ids.to(encoder.device), output_hidden_states=True).hidden_states
    ends = read.attention_mask.sum(1) - 1
    seen = []
    for row, end in enumerate(ends.tolist()):
        seen.append(states[dice.randint(SHALLOWEST, len(states) - 1)][row, dice.randint(end, 76)])
    encoded = encoder.final_layer_norm(torch.stack(seen))
    losses = []
    for question, answers in ANSWERS.items():
        right = [answers.index(said.parts.get(question, _UNSAID)) for said in prompts]
        losses.append(cross_entropy(heads[question](encoded), torch.tensor(right, device=encoded.device)))
    return torch.stack(losses).sum()
