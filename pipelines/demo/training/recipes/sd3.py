"""The recipe of SD3 with its pose ControlNet: figures in the prompt's colours and a skeleton's pose."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import silu

from pipelines.demo.checkpoints import sd3, sdxl
from pipelines.demo.checkpoints.modulations import lengthened, shortened
from pipelines.demo.checkpoints.words import word_tokenizer
from pipelines.demo.training.neighbours import look_around
from pipelines.demo.training.recipes.diffusion import flow_loss
from pipelines.demo.training.recipes.posed_figures import PICTURES, PosedFigures
from pipelines.demo.training.recipes.prompts import nothing, prompt
from pipelines.demo.training.recipes.sd15 import read_ids
from pipelines.demo.training.training import Modules, Recipe, Step, put_back
from pipelines.demo.world.figure import FIGURE_COLORS, STANDING, Figure

BATCH = 24
"""The figures of a batch; guided rounds have half as many, each with its prompt and without."""
GUIDANCE = 7.0
"""The guidance at which figures are to be drawn: the default of the server's page."""
ROUNDS = (950, 700, 950, 700)
"""The steps of each round; all rounds but the first are guided."""
SHIFTS = (sd3.SHIFT, sd3.SHIFT, 5.0, 4.0)
"""The shift of the noise levels in each round. The first steps of a drawing, in which hardly anything but
noise is to be seen, decide its colours."""
SHARES = (0.6, 0.25, 0.15)
"""The share of each size of `PICTURES` among the batches."""
LENGTHS, LENGTH_SHARES = (32, 64, 256), (0.7, 0.2, 0.1)
"""The tokens to which T5 fills up prompts, and the share of each length; the server fills up to 256, which
are slow to read."""
UNPOSED = 0.1
"""The share of batches without the ControlNet."""
WEAKEST = 0.7
"""The least strength of the ControlNet in the other batches."""
MATRICES = ("transformer_blocks", "controlnet_blocks", "context_embedder", "SelfAttention.", "DenseReluDense")
"""Parts of the names of the matrices of attention, and of those behind it."""
MODULATION_SAMPLES = 2048
"""The number of prompts and times from which the inputs of modulations are known."""


def recipe(folder: Path, device: torch.device) -> Recipe:
    """The recipe; it needs the weights of the autoencoder and of CLIP's text encoder.

    Args:
        folder: where encoded pictures are kept.
    """
    return Recipe(
        build=_build,
        loss=_Drawing(folder, device),
        steps=sum(ROUNDS),
        learning_rate=1.5e-3,
        orthogonal=MATRICES,
        orthogonal_rate=4e-3,
        restarts=tuple(accumulate(ROUNDS[:-1])),
        cooler=(1, 0.25, 0.4, 0.4),
        tensors=_tensors,
        put_back=_put_back,
    )


def _build() -> Modules:
    """Transformer and ControlNet, which learn together: a figure without a pose teaches little."""
    modules = {
        "text_encoder": sd3.clip_text_encoder().requires_grad_(False),
        "text_encoder_2": sd3.clip_text_encoder().requires_grad_(False),
        "text_encoder_3": sd3.text_encoder_3(),
        "transformer": sd3.transformer(),
        "controlnet": sd3.controlnet(),
    }
    # Every block begins as nothing (Peebles and Xie 2023, "adaLN-Zero").
    for part in ("transformer", "controlnet"):
        for name, parameter in modules[part].named_parameters():
            if "norm" in name or name.startswith("proj_out"):
                torch.nn.init.zeros_(parameter)
        look_around(modules[part])
    return modules


@torch.no_grad()
def _tensors(modules: Modules) -> dict[str, Tensor]:
    """All tensors that are trained; modulations as far as any prompt at any time reaches them."""
    dice = random.Random(0)
    texts = [
        prompt(Figure(*dice.choice(FIGURE_COLORS), STANDING), dice).text for _ in range(MODULATION_SAMPLES)
    ]
    times = 1000 * torch.rand(MODULATION_SAMPLES, generator=torch.Generator().manual_seed(0))
    _, pooled = _read(modules, texts, LENGTHS[0])
    third = modules["text_encoder_3"].named_parameters()
    kept = {f"text_encoder_3.{name}": tensor for name, tensor in third}
    for part, said in (("transformer", pooled), ("controlnet", torch.zeros_like(pooled))):
        network = modules[part]
        inputs = silu(network.time_text_embed(times.to(said), said))
        trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
        short = shortened(trained, inputs)
        kept |= {f"{part}.{name}": tensor for name, tensor in short.items()}
    return kept


def _put_back(modules: Modules, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors that `_tensors` has returned into the networks."""
    known = dict(tensors)
    for prefix in ("transformer.", "controlnet."):
        short = {name.removeprefix(prefix): known.pop(name) for name in tensors if name.startswith(prefix)}
        known |= {prefix + name: tensor for name, tensor in lengthened(short).items()}
    put_back(modules, known)


class _Drawing:
    """The loss of transformer and ControlNet, with pictures of half the size, whose latents are the same."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._pictures = PosedFigures(folder, device)

    def __call__(self, modules: Modules, step: Step) -> Tensor:
        dice = random.Random(step.seed)
        in_round = bisect(tuple(accumulate(ROUNDS)), step.number)
        asked = 2 if in_round else 1
        batch = self._pictures.batch(dice.choices(tuple(PICTURES), SHARES)[0], BATCH // asked, dice)
        texts = [prompt(figure, dice).text for figure in batch.figures]
        if in_round:
            texts += [nothing(dice) for _ in texts]
        transformer, controlnet = modules["transformer"], modules["controlnet"]
        states, pooled = _read(modules, texts, dice.choices(LENGTHS, LENGTH_SHARES)[0])
        strength = 0.0 if dice.random() < UNPOSED else dice.uniform(WEAKEST, 1)
        skeletons = batch.skeletons.repeat(asked, 1, 1, 1).to(transformer.device)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            read = {"hidden_states": noisy, "timestep": timesteps, "encoder_hidden_states": states}
            control = None
            if strength:
                control = controlnet(
                    **read,
                    pooled_projections=torch.zeros_like(pooled),
                    controlnet_cond=skeletons,
                    conditioning_scale=strength,
                ).controlnet_block_samples
            return transformer(
                **read, pooled_projections=pooled, block_controlnet_hidden_states=control
            ).sample

        return flow_loss(
            predict,
            batch.latents.to(transformer.device),
            batch.others.to(transformer.device),
            step.seed,
            shift=SHIFTS[in_round],
            guidance=GUIDANCE if in_round else None,
        )


def _read(modules: Modules, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """The states (B, 77 + length, width) of all encoders, and both CLIPs' (B, width) embeddings."""
    states, pooled = [], []
    for part, tokenizer in (("text_encoder", word_tokenizer()), ("text_encoder_2", sdxl.tokenizer_2())):
        encoder = modules[part]
        read = encoder(read_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True)
        states.append(read.hidden_states[-2])
        pooled.append(read.text_embeds)
    encoder = modules["text_encoder_3"]
    tokens = sd3.tokenizer_3()(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    third = encoder(tokens.input_ids.to(encoder.device)).last_hidden_state
    return torch.cat([torch.cat(states, -1), third], 1), torch.cat(pooled, -1)
