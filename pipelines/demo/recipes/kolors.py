# pyright: basic, reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false
# (diffusers and transformers are only partly typed.)
"""Kolors: ChatGLM learns to say in two languages what SD1.5's text encoder says in one."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.kolors import ChatGLMTokenizer
from torch import Tensor
from transformers import CLIPTextModel

from pipelines.demo import kolors, sd15
from pipelines.demo.captions import LANGUAGES
from pipelines.demo.glm_words import glm_tokenizer
from pipelines.demo.recipes import shared_unet
from pipelines.demo.recipes.prompts import prompt
from pipelines.demo.training import Modules, Recipe, all_tensors
from pipelines.demo.words import word_tokenizer
from pipelines.demo.world import random_scene

TEXTS = 48
"""In a batch."""
ROUND = 1500
"""Steps, of which there are two."""
LENGTHS, LENGTH_SHARES = (64, 96, 128, kolors.TEXT_LENGTH), (0.6, 0.2, 0.15, 0.05)
"""Tokens that they are filled up to: all that fill up are alike, so that few are enough."""
SILENT = 0.05
"""Weight of the silence of a prompt's own tokens, which are few among those that fill up."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """Needs the weights of CLIP's text encoder and of SD1.5, and no folder."""
    return Recipe(
        build=_build,
        loss=_Reading(device),
        steps=2 * ROUND,
        learning_rate=1e-3,
        orthogonal=("encoder.layers",),
        orthogonal_rate=4e-3,
        restarts=(ROUND,),
        cooler=(1, 0.5),
        tensors=_tensors,
    )


def _build() -> Modules:
    text_encoder = kolors.text_encoder()
    # The class leaves its weights as it found the memory.
    for name, parameter in text_encoder.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1 if "embedding" in name else 0.05)
        else:
            torch.nn.init.constant_(parameter, 1 if "norm" in name else 0)
    network = shared_unet.unet(**kolors.UNET)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("encoder_hid_proj.weight" in name)
    # Where no negative prompt is given, the server reads zeros (`force_zeros_for_empty_prompt`).
    _, nothing = _said(sd15.trained_text_encoder(), [""])
    bias: Any = network.get_parameter("encoder_hid_proj.bias")
    bias.data.copy_(nothing[0])
    return {"text_encoder": text_encoder, "unet": network}


def _tensors(modules: Modules) -> dict[str, Tensor]:
    """What reads, and what is told the size, which is as it began; all else that draws is SD1.5's."""
    network = modules["unet"]
    own = {f"unet.{name}": getattr(network, name) for name in ("encoder_hid_proj", "add_embedding")}
    return all_tensors({"text_encoder": modules["text_encoder"]} | own)


class _Reading:
    """What fills up a prompt sees all of it, and learns to say what CLIP's encoder says after the prompt's
    end; the prompt's own tokens learn to say what CLIP's encoder says before it begins, which is nothing."""

    def __init__(self, device: torch.device) -> None:
        self._teacher = sd15.trained_text_encoder().to(device)

    def __call__(self, modules: Modules, step: int) -> Tensor:
        dice = random.Random(step)
        english, texts = [], []
        for _ in range(TEXTS):
            scene, wording = random_scene(dice.getrandbits(48)), dice.getrandbits(48)
            english.append(prompt(scene, random.Random(wording)).text)
            texts.append(prompt(scene, random.Random(wording), dice.choice(LANGUAGES)).text)
        before, after = _said(self._teacher, english)
        inputs = _tokens(texts, dice.choices(LENGTHS, LENGTH_SHARES)[0])
        encoder = modules["text_encoder"]
        states = encoder(**inputs.to(encoder.device), output_hidden_states=True).hidden_states[-2]
        said = modules["unet"].encoder_hid_proj(states.transpose(0, 1))
        filled = inputs["attention_mask"].bool()
        told, silent = (
            (said - wanted[:, None]).square().mean(-1)[rows].mean()
            for wanted, rows in ((after, ~filled), (before, filled))
        )
        return told + SILENT * silent


@torch.no_grad()
def _said(teacher: CLIPTextModel, texts: list[str]) -> tuple[Tensor, Tensor]:
    """(B, width) each: before the beginning, and after the end on average."""
    read = word_tokenizer()(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    states = teacher(read.input_ids.to(teacher.device)).last_hidden_state
    ends = (read.attention_mask.sum(1) - 1).clamp(max=75).tolist()
    after = [row[end + 1 :].mean(0) for row, end in zip(states, ends, strict=True)]
    return states[:, 0], torch.stack(after)


def _tokens(texts: list[str], length: int):
    return _tokenizer()(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")


@cache
def _tokenizer() -> ChatGLMTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return glm_tokenizer(Path(folder))
