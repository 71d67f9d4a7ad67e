"""``python -m pipelines.demo.training.train NAME``: train the networks of one small checkpoint from a seed.

A run that was stopped goes on where it was. With ``--times 4`` it takes four times as many steps, which is
for GPUs. With ``--last-round`` only the last round is run, from the weights that are there, to make them
better or to fit them to others that have changed.

The run ends with ``weights/NAME.safetensors`` and a sheet of pictures to look at.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from pipelines.demo.checkpoints.parts import load_weights, save_weights
from pipelines.demo.training.recipes import (
    autoencoder,
    clip_image,
    clip_text,
    embedding,
    kandinsky22,
    kandinsky_prior,
    kolors,
    loras,
    movq,
    safety_checker,
    sd3,
    sd15,
    sdxl,
    upscaler,
)
from pipelines.demo.training.sample_sheets import SHEETS
from pipelines.demo.training.training import Recipe, Training, TrainingProgress

RECIPES: dict[str, Callable[[Path, torch.device], Recipe]] = {
    "autoencoder": autoencoder.recipe,
    "clip_text": clip_text.recipe,
    "sd15": sd15.recipe,
    "striped": partial(loras.recipe, style="striped"),
    "outlined": partial(loras.recipe, style="outlined"),
    "night_scene": embedding.recipe,
    "sdxl": sdxl.recipe,
    "kolors": kolors.recipe,
    "movq": movq.recipe,
    "clip_image": clip_image.recipe,
    "kandinsky_prior": kandinsky_prior.recipe,
    "kandinsky22": kandinsky22.recipe,
    "sd3": sd3.recipe,
    "upscaler": upscaler.recipe,
    "safety_checker": safety_checker.recipe,
}
"""The recipes, in the order in which they are to be trained: later ones read the weights of earlier ones."""

SEED = 1

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the networks of one small checkpoint.")
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--times", type=int, default=1, help="take this many times the recipe's steps")
    parser.add_argument("--last-round", action="store_true", help="begin with the weights that are there")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--folder", type=Path, default=_cache(), help="folder for the state of unfinished runs"
    )
    arguments = parser.parse_args()
    # Networks begin with subnormal numbers in their optimizer's memory, which CPUs add very slowly.
    torch.set_flush_denormal(True)
    device = torch.device(arguments.device)
    folder = arguments.folder / arguments.name
    recipe = RECIPES[arguments.name](folder, device)
    run, known = [f"seed-{arguments.seed}", f"times-{arguments.times}"], None
    if arguments.last_round:
        known = load_weights(arguments.name)
        run.append("last-round")
    file = folder / f"{'-'.join(run)}.pt"
    training = Training(recipe, file, device, seed=arguments.seed, times=arguments.times, known=known)
    _run(training, arguments.name)
    modules = training.use_averages()
    metadata = {"seed": str(arguments.seed), "steps": str(recipe.steps), **recipe.metadata(modules)}
    if arguments.times > 1:
        metadata["times"] = str(arguments.times)
    if known:
        metadata["round"] = "last"
    console.print(f"weights: {save_weights(recipe.tensors(modules), arguments.name, metadata)}")
    if arguments.name in SHEETS:
        sheet = folder / "sheet.png"
        SHEETS[arguments.name]().save(sheet)
        console.print(f"sample sheet: {sheet}")


def _run(training: Training, name: str) -> None:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task(name, total=training.steps, completed=training.step)

        def show(progress: TrainingProgress) -> None:
            bar.update(task, completed=progress.step, description=f"{name}, loss {progress.loss:.4f}")

        training.run(show)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy-training"


if __name__ == "__main__":
    main()
