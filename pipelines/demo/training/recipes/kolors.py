"""The recipe of Kolors, whose ChatGLM learns in two languages the states of SD1.5's text encoder."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel

from pipelines.checkpoints.diffusers_kolors import ChatGLMTokenizer
from pipelines.checkpoints.tokenizers import glm_tokenizer
from pipelines.demo.checkpoints import kolors, sd15, sdxl_unet
from pipelines.demo.checkpoints.glm_words import GLM_WORDS
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.checkpoints.schedule import SCHEDULE
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.training.recipes.diffusion import noised
from pipelines.demo.training.recipes.encoded_world import PICTURES, EncodedWorld
from pipelines.demo.training.recipes.prompts import Prompt, prompt
from pipelines.demo.training.recipes.sd15 import GUIDANCE, read
from pipelines.demo.training.training import Modules, Recipe, Step, all_tensors
from pipelines.demo.world.captions import LANGUAGES, Language
from pipelines.demo.world.world import Scene, random_scene

TEXTS = 48
"""The texts in a batch that is only read."""
READING, DRAWING = (1500, 1500), 800
"""The steps of the rounds: first ChatGLM learns the states of CLIP's encoder, then the UNet learns to draw
by ChatGLM."""
LENGTHS, LENGTH_SHARES = (64, 96, 128, kolors.TEXT_LENGTH), (0.6, 0.2, 0.15, 0.05)
"""The tokens to which texts are filled up, and the share of each length: all filling is alike, so that a
little is enough."""
OWN_TOKENS_WEIGHT = 0.05
"""The weight of the error of a prompt's own tokens, which are few beside those that fill up."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder, of CLIP's text encoder and of SD1.5.

    Args:
        folder: encoded pictures are kept beside it, since SD1.5 has the same ones.
    """
    reading = _Reading(device)
    drawing = _Drawing(folder.with_name("sd15"), device)
    return Recipe(
        build=_build,
        loss=lambda modules, step: (reading if step.number < sum(READING) else drawing)(modules, step),
        steps=sum(READING) + DRAWING,
        learning_rate=1e-3,
        orthogonal=("encoder.layers",),
        orthogonal_rate=4e-3,
        restarts=(READING[0], sum(READING)),
        cooler=(1, 0.5, 0.25),
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
    network = sdxl_unet.unet(**kolors.UNET)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("encoder_hid_proj.weight" in name)
    # Where no negative prompt is given, the server reads zeros (`force_zeros_for_empty_prompt`).
    _, nothing = _said(sd15.trained_text_encoder(), [""])
    bias: Any = network.get_parameter("encoder_hid_proj.bias")
    bias.data.copy_(nothing[0])
    return {"text_encoder": text_encoder, "unet": network}


def _tensors(modules: Modules) -> dict[str, Tensor]:
    """The tensors of the text encoder, and those of the UNet that are not SD1.5's."""
    network = modules["unet"]
    own = {f"unet.{name}": getattr(network, name) for name in ("encoder_hid_proj", "add_embedding")}
    return all_tensors({"text_encoder": modules["text_encoder"]} | own)


class _Reading:
    """The error of ChatGLM's states. The tokens that fill up a prompt see all of it, and learn the states
    of CLIP's encoder after the prompt's end; the prompt's own tokens learn the state before its beginning,
    which tells nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._teacher = sd15.trained_text_encoder().to(device)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        both = [_in_two_languages(random_scene(dice.getrandbits(48)), dice) for _ in range(TEXTS)]
        before, after = _said(self._teacher, [english for english, _ in both])
        said, is_own = _read(modules, [other.text for _, other in both], dice)
        filling, own = (
            (said - wanted[:, None]).square().mean(-1)[rows].mean()
            for wanted, rows in ((after, ~is_own), (before, is_own))
        )
        return filling + OWN_TOKENS_WEIGHT * own


class _Drawing:
    """The difference between SD1.5's drawing by ChatGLM's states and by those of CLIP's encoder for the
    same scenes.

    CLIP's encoder also names shapes and colours word by word, at places that no other language has; only
    the UNet knows how much of that it uses.

    Args:
        folder: where encoded pictures are kept.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._teacher = sd15.trained_text_encoder().to(device)
        unet = load_trained(sd15.unet(), "sd15", "unet").requires_grad_(False)
        self._unet = unet.to(device, memory_format=torch.channels_last)
        self._world = EncodedWorld(folder, device)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        english: list[str] = []

        def say(scene: Scene, dice: random.Random) -> Prompt:
            text, other = _in_two_languages(scene, dice)
            english.append(text)
            return other

        batch = self._world.batch(min(PICTURES), dice, say)
        generator = torch.Generator().manual_seed(step.seed)
        times = torch.randint(SCHEDULE["num_train_timesteps"], (len(english),), generator=generator)
        noisy = noised(batch.latents, torch.randn(batch.latents.shape, generator=generator), times)
        seen = noisy.to(self._unet.device), times.to(self._unet.device)
        said, _ = _read(modules, batch.texts, dice)
        with torch.autocast(self._unet.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = self._unet(*seen, read(self._teacher, english)).sample
            drawn = self._unet(*seen, said).sample
        return GUIDANCE**2 * mse_loss(drawn.float(), wanted.float())


def _in_two_languages(scene: Scene, dice: random.Random) -> tuple[str, Prompt]:
    """The same wording in English, and in either language."""
    wording = dice.getrandbits(48)
    languages: tuple[Language, ...] = ("en", dice.choice(LANGUAGES))
    english, other = (prompt(scene, random.Random(wording), language) for language in languages)
    return english.text, other


def _read(modules: Modules, texts: list[str], dice: random.Random) -> tuple[Tensor, Tensor]:
    """The states (B, length, width) that the UNet reads, and (B, length) whether a prompt's own token has
    them."""
    inputs = _tokens(texts, dice.choices(LENGTHS, LENGTH_SHARES)[0])
    encoder = modules["text_encoder"]
    states = encoder(**inputs.to(encoder.device), output_hidden_states=True).hidden_states[-2]
    return modules["unet"].encoder_hid_proj(states.transpose(0, 1)), inputs["attention_mask"].bool()


@torch.no_grad()
def _said(teacher: CLIPTextModel, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Two (B, width) states of CLIP's encoder: before the beginning, and the mean of those after the end."""
    tokens = word_tokenizer()(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    states = teacher(tokens.input_ids.to(teacher.device)).last_hidden_state
    ends = (tokens.attention_mask.sum(1) - 1).clamp(max=75).tolist()
    after = [row[end + 1 :].mean(0) for row, end in zip(states, ends, strict=True)]
    return states[:, 0], torch.stack(after)


def _tokens(texts: list[str], length: int):
    return _tokenizer()(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")


@cache
def _tokenizer() -> ChatGLMTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return glm_tokenizer(Path(folder), GLM_WORDS)
