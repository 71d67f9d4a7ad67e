# pyright: basic
# (torch's functions are only partly typed.)
"""``python -m pipelines.demo.evaluate``: what the small checkpoints draw, read by the judge, as a table."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipelines.demo.build import ensure
from pipelines.demo.captions import caption
from pipelines.demo.judge import compare, read
from pipelines.demo.palette import COLORS
from pipelines.demo.shapes import SHAPES
from pipelines.demo.studio import Studio
from pipelines.demo.world import Scene, combinations
from pipelines.image_io import RGBImage
from pipelines.request import PriorTextToImage, Request, SchedulerChoice, TextToImage

PROMPTS = 100
"""Of each row of the table; of held-out combinations there are fewer, and all of them are drawn."""


Ask = Callable[..., Request]
"""(prompt, seed, negative_prompt, **changes) -> what the page of a checkpoint asks of it by default."""


def _asks(pipeline: str, side: int, **defaults: Any) -> Ask:
    def ask(prompt: str, seed: int, negative_prompt: str | None = None, **changes: Any) -> TextToImage:
        asked: dict[str, Any] = {"width": side, "height": side, "seeds": (seed,)} | defaults | changes
        return TextToImage(pipeline=pipeline, prompt=prompt, negative_prompt=negative_prompt, **asked)

    return ask


def _asks_prior(pipeline: str, side: int, **defaults: Any) -> Ask:
    def ask(prompt: str, seed: int, negative_prompt: str | None = None, **changes: Any) -> PriorTextToImage:
        asked: dict[str, Any] = {"width": side, "height": side, "seeds": (seed,)} | defaults | changes
        return PriorTextToImage(pipeline=pipeline, prompt=prompt, negative_prompt=negative_prompt, **asked)

    return ask


_ENTERPRISE: dict[str, Any] = {
    "num_inference_steps": 20,
    "guidance_scale": 7.5,
    "scheduler": SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
}

ARTISTS: Mapping[str, Ask] = {
    "SD1.5": _asks("stable-diffusion-v1-5", 512, **_ENTERPRISE),
    "SDXL": _asks("sdxl", 1024, **_ENTERPRISE),
    "Kolors": _asks("kolors", 1024, num_inference_steps=25, guidance_scale=6.0),
    "Kandinsky 2.2": _asks_prior(
        "kandinsky-2-2",
        768,
        num_inference_steps=20,
        prior_num_inference_steps=25,
        guidance_scale=4.0,
        prior_guidance_scale=4.0,
    ),
}

Draw = Callable[[Sequence[Request]], list[tuple[RGBImage, ...]]]


@dataclass(frozen=True, slots=True)
class Score:
    """Parts of the pictures of a row, 0 .. 1."""

    colors: float
    everything: float
    count: int


def trained_scenes(count: int) -> list[Scene]:
    """The same sample of the trained combinations every time."""
    return random.Random(0).sample(list(combinations(held_out=False)), count)


def held_out_scenes(count: int) -> list[Scene]:
    """The same sample of the combinations that training never shows."""
    scenes = list(combinations(held_out=True))
    return random.Random(0).sample(scenes, min(count, len(scenes)))


def follows_prompts(draw: Draw, ask: Ask, scenes: Sequence[Scene]) -> Score:
    """How often a picture of each scene's caption shows it."""
    drawn = draw([ask(caption(scene), seed) for seed, scene in enumerate(scenes)])
    verdicts = [compare(read(image), scene) for (image,), scene in zip(drawn, scenes, strict=True)]
    colors = [verdict.ground and verdict.colors for verdict in verdicts]
    everything = [right and verdict.shapes for right, verdict in zip(colors, verdicts, strict=True)]
    return Score(sum(colors) / len(scenes), sum(everything) / len(scenes), len(scenes))


def heeds_negative_prompts(draw: Draw, ask: Ask, count: int) -> float:
    """How often a colour that would have been drawn disappears when the negative prompt names it.

    Of prompts that leave the ground open, those count whose picture has a ground of a known colour.
    """
    dice = random.Random(1)
    prompts = [f"a {dice.choice(COLORS)} {dice.choice(SHAPES)}" for _ in range(count)]
    free = draw([ask(prompt, seed) for seed, prompt in enumerate(prompts)])
    grounds = {seed: read(image).ground for seed, (image,) in enumerate(free)}
    named = {seed: ground for seed, ground in grounds.items() if ground}
    drawn = draw([ask(prompts[seed], seed, f"a {ground} background") for seed, ground in named.items()])
    gone = [read(image).ground != ground for (image,), ground in zip(drawn, named.values(), strict=True)]
    return sum(gone) / len(gone)


def measured(studio: Studio, ask: Ask, count: int, on_picture: Callable[[], None]) -> list[float]:
    """The figures of `MEASURES`, in order."""

    def draw(requests: Sequence[Request]) -> list[tuple[RGBImage, ...]]:
        return studio.draw(requests, on_picture)

    known = follows_prompts(draw, ask, trained_scenes(count))
    new = follows_prompts(draw, ask, held_out_scenes(count))
    return [known.colors, known.everything, new.everything, heeds_negative_prompts(draw, ask, count // 2)]


MEASURES = {
    "ground and shape colour right, trained combinations": 0.98,
    "all three right, trained combinations": 0.95,
    "all three right, held-out combinations": 0.80,
    "negative prompt: the named colour disappears": 0.90,
}
"""And what each has to reach."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the small checkpoints draw.")
    parser.add_argument("--only", choices=ARTISTS, action="append", help="a family; may be repeated")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="of each row of the table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    names: list[str] = arguments.only or list(ARTISTS)
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as bar:
        studio = Studio(ensure(Path(folder)), arguments.device)
        columns: list[list[float]] = []
        for name in names:
            task = bar.add_task(name, total=None)
            columns.append(measured(studio, ARTISTS[name], arguments.prompts, partial(bar.advance, task)))
    table = Table("", "at least", *names)
    for (measure, least), *figures in zip(MEASURES.items(), *columns, strict=True):
        table.add_row(measure, f"{least:.0%}", *(f"{figure:.0%}" for figure in figures))
    console.print(table)


if __name__ == "__main__":
    main()
