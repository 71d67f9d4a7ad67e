"""``python -m pipelines.demo.training.evaluate``: print a table of how well the small checkpoints draw.

The judge reads the pictures. The exit status is 1 when a checkpoint misses a target.
"""

from __future__ import annotations

import argparse
import random
import sys
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

from pipelines.control.skeletons import Person, draw_skeletons
from pipelines.demo.build import ensure
from pipelines.demo.judging.figure_match import has_colors
from pipelines.demo.judging.joints import SeenFigure, joint_error, read_figure
from pipelines.demo.judging.judge import border, color_name, compare, read, smoothed
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import Language, caption
from pipelines.demo.world.figure import Figure
from pipelines.demo.world.palette import COLORS, lab
from pipelines.demo.world.poses import random_figure
from pipelines.demo.world.shapes import SHAPES
from pipelines.demo.world.world import Scene, combinations
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, PriorTextToImage, Request, SchedulerChoice, TextToImage

COLORS_RIGHT = "ground and shape colour right, trained combinations"
ALL_RIGHT = "all three right, trained combinations"
NEW_RIGHT = "all three right, held-out combinations"
CHINESE_RIGHT = "all three right, trained combinations in Chinese"
POSE_ERROR = "pose: mean joint error at strength 0.8, in parts of the figure's height"
COLOR_GONE = "negative prompt: the named colour disappears"

PROMPTS = 100
"""The prompts of each row of the table; half as many where each is drawn twice, with a negative prompt and
without. There are fewer held-out combinations, and all of them are drawn."""
FIGURE_SIDE = 1024
"""The width and height of pictures of figures, in pixels."""
UNREAD_ERROR = 0.5
"""The joint error that counts for a figure that cannot be read, in parts of its height."""
STRAY_SHARE = 0.1
"""The greatest part of a picture's edge that may have a colour which has disappeared."""

Ask = Callable[..., Request]
"""A function (prompt, seed, negative_prompt, **changes) -> the request that a checkpoint's page makes by
default of a caller's own words: without the phrases that ModelsLab adds and the negative prompt of SD3's
page.
"""


def _asks(
    pipeline: str, side: int, kind: type[TextToImage | PriorTextToImage] = TextToImage, **defaults: Any
) -> Ask:
    def ask(prompt: str, seed: int, negative_prompt: str | None = None, **changes: Any) -> Request:
        asked: dict[str, Any] = {"width": side, "height": side, "seeds": (seed,)} | defaults | changes
        return kind(pipeline=pipeline, prompt=prompt, negative_prompt=negative_prompt, **asked)

    return ask


_ENTERPRISE: dict[str, Any] = {
    "num_inference_steps": 20,
    "guidance_scale": 7.5,
    "scheduler": SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
    "token_merging_ratio": 0.5,
}

ARTISTS: Mapping[str, Ask] = {
    "SD1.5": _asks("stable-diffusion-v1-5", 512, **_ENTERPRISE),
    "SDXL": _asks("sdxl", 1024, **_ENTERPRISE),
    "Kolors": _asks("kolors", 1024, num_inference_steps=25, guidance_scale=6.0),
    "Kandinsky 2.2": _asks(
        "kandinsky-2-2",
        768,
        PriorTextToImage,
        num_inference_steps=20,
        prior_num_inference_steps=25,
        guidance_scale=4.0,
        prior_guidance_scale=4.0,
    ),
}


def ask_for_figure(
    prompt: str, person: Person, seed: int, negative_prompt: str | None = None, **changes: Any
) -> PoseToImage:
    """The request that SD3's page makes by default, with the skeleton of a person in a square."""
    asked: dict[str, Any] = {
        "width": FIGURE_SIDE,
        "height": FIGURE_SIDE,
        "seeds": (seed,),
        "num_inference_steps": 20,
        "guidance_scale": 7.0,
        "controlnet_conditioning_scale": 0.8,
        "scheduler": SchedulerChoice(name="dpmpp_2m", sigma_schedule="sgm_uniform"),
    }
    return PoseToImage(
        pipeline="sd3-medium-pose",
        prompt=prompt,
        negative_prompt=negative_prompt,
        image=draw_skeletons(FIGURE_SIDE, FIGURE_SIDE, [person]),
        **asked | changes,
    )


AskForFigure = Callable[..., PoseToImage]
"""A function (prompt, person, seed, negative_prompt, **changes) -> the request for a figure."""

Draw = Callable[[Sequence[Request]], list[tuple[RGBImage, ...]]]


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of the pictures, 0 .. 1, whose colours are right, and in which all is right."""

    colors: float
    everything: float


def trained_scenes(count: int) -> list[Scene]:
    """A sample of the trained combinations, always the same."""
    return random.Random(0).sample(list(combinations(held_out=False)), count)


def held_out_scenes(count: int) -> list[Scene]:
    """A sample of the combinations that training never shows, always the same."""
    scenes = list(combinations(held_out=True))
    return random.Random(0).sample(scenes, min(count, len(scenes)))


def follows_prompts(draw: Draw, ask: Ask, scenes: Sequence[Scene], language: Language = "en") -> Score:
    """The parts of the pictures that show the scenes whose captions were the prompts."""
    drawn = draw([ask(caption(scene, language), seed) for seed, scene in enumerate(scenes)])
    verdicts = [compare(read(image), scene) for (image,), scene in zip(drawn, scenes, strict=True)]
    colors = [verdict.ground and verdict.colors for verdict in verdicts]
    everything = [right and verdict.shapes for right, verdict in zip(colors, verdicts, strict=True)]
    return Score(sum(colors) / len(scenes), sum(everything) / len(scenes))


def heeds_negative_prompts(draw: Draw, ask: Ask, count: int) -> float:
    """The part of the drawn grounds whose colour disappears when the negative prompt names it.

    The prompts leave the ground open; a picture counts if its ground has a known colour.
    """
    dice = random.Random(1)
    prompts = [f"a {dice.choice(COLORS)} {dice.choice(SHAPES)}" for _ in range(count)]
    return _grounds_gone(draw, [partial(ask, prompt, seed) for seed, prompt in enumerate(prompts)])


def figures_heed_negative_prompts(ask: AskForFigure, draw: Draw, figures: Sequence[Figure]) -> float:
    """The same part as that of `heeds_negative_prompts`, for figures in given poses."""
    asks = [
        partial(ask, f"a {figure.color} figure", figure.person, seed) for seed, figure in enumerate(figures)
    ]
    return _grounds_gone(draw, asks)


def _grounds_gone(draw: Draw, asks: Sequence[Callable[[str | None], Request]]) -> float:
    """The part of the grounds that disappear when a negative prompt names their colour.

    Raises:
        ValueError: no ground has a known colour.
    """
    free = [
        (ask, read(image).ground)
        for ask, (image,) in zip(asks, draw([ask(None) for ask in asks]), strict=True)
    ]
    named = [(ask, ground) for ask, ground in free if ground]
    if not named:
        raise ValueError("no picture has a ground of a known colour")
    drawn = draw([ask(f"a {ground} background") for ask, ground in named])
    gone = [_is_gone(ground, image) for (image,), (_, ground) in zip(drawn, named, strict=True)]
    return sum(gone) / len(gone)


def _is_gone(color: str, picture: RGBImage) -> bool:
    """Whether hardly anything of a picture's edge, be it even or not, has a colour."""
    looks = lab(smoothed(picture))
    edge = looks[border(looks)]
    return sum(color_name(look) == color for look in edge) < STRAY_SHARE * len(edge)


def measure(ask: Ask, draw: Draw, count: int) -> dict[str, float]:
    """Measure the parts of `TARGETS` that a checkpoint has which draws shapes."""
    known = follows_prompts(draw, ask, trained_scenes(count))
    new = follows_prompts(draw, ask, held_out_scenes(count))
    return {
        COLORS_RIGHT: known.colors,
        ALL_RIGHT: known.everything,
        NEW_RIGHT: new.everything,
        COLOR_GONE: heeds_negative_prompts(draw, ask, count // 2),
    }


def measure_in_two_languages(ask: Ask, draw: Draw, count: int) -> dict[str, float]:
    """Measure the same as `measure`, and how often a caption in Chinese is followed."""
    chinese = follows_prompts(draw, ask, trained_scenes(count), "zh")
    return measure(ask, draw, count) | {CHINESE_RIGHT: chinese.everything}


def measure_figures(ask: AskForFigure, draw: Draw, count: int) -> dict[str, float]:
    """Measure the parts of `TARGETS` that a checkpoint has which draws people in poses."""
    figures = new_figures(count)
    drawn = draw([ask(caption(each), each.person, seed) for seed, each in enumerate(figures)])
    pairs = [(image, figure) for (image,), figure in zip(drawn, figures, strict=True)]
    readings = [read_figure(image) for image, _ in pairs]
    return {
        COLORS_RIGHT: sum(has_colors(*pair) for pair in pairs) / len(pairs),
        POSE_ERROR: mean_joint_error(readings, figures),
        COLOR_GONE: figures_heed_negative_prompts(ask, draw, figures[: count // 2]),
    }


def new_figures(count: int) -> list[Figure]:
    """Figures in poses that training never shows, always the same."""
    return [random_figure(1_000_000 + seed) for seed in range(count)]


def mean_joint_error(readings: Sequence[SeenFigure | None], figures: Sequence[Figure]) -> float:
    """The mean joint error, in parts of a figure's height; an unread figure counts as `UNREAD_ERROR`."""
    pairs = zip(readings, figures, strict=True)
    errors = [joint_error(seen, figure.person) if seen else UNREAD_ERROR for seen, figure in pairs]
    return sum(errors) / len(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The least or the greatest value that a part, 0 .. 1, may have."""

    least: float = 0.0
    most: float = 1.0

    def met(self, value: float, tolerance: float = 0.0) -> bool:
        """Whether a value reaches the target, or misses it by no more than ``tolerance``."""
        return self.least - tolerance <= value <= self.most + tolerance

    def __str__(self) -> str:
        return f"{self.least:.0%}" if self.least else f"at most {self.most:.0%}"


TARGETS: Mapping[str, Target] = {
    COLORS_RIGHT: Target(least=0.98),
    ALL_RIGHT: Target(least=0.95),
    NEW_RIGHT: Target(least=0.80),
    CHINESE_RIGHT: Target(least=0.95),
    POSE_ERROR: Target(most=0.05),
    COLOR_GONE: Target(least=0.90),
}

FAMILIES: Mapping[str, Callable[[Draw, int], dict[str, float]]] = {
    **{name: partial(measure, ask) for name, ask in ARTISTS.items()},
    "Kolors": partial(measure_in_two_languages, ARTISTS["Kolors"]),
    "SD3": partial(measure_figures, ask_for_figure),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the small checkpoints draw.")
    parser.add_argument("--only", choices=FAMILIES, action="append", help="a family; may be repeated")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="prompts for each row of the table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    names: list[str] = arguments.only or list(FAMILIES)
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as bar:
        local_loop = LocalLoop(ensure(Path(folder)), arguments.device)
        columns: list[dict[str, float]] = []
        for name in names:
            task = bar.add_task(name, total=None)
            draw = partial(local_loop.draw, on_picture=partial(bar.advance, task))
            columns.append(FAMILIES[name](draw, arguments.prompts))
    table = Table("", "at least", *names)
    for name, target in TARGETS.items():
        cells = (f"{column[name]:.1%}" if name in column else "" for column in columns)
        table.add_row(name, str(target), *cells)
    console.print(table)
    return int(not all(TARGETS[name].met(value) for column in columns for name, value in column.items()))


if __name__ == "__main__":
    sys.exit(main())
