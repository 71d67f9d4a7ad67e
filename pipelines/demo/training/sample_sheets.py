"""A sheet of pictures of each training's networks, to be looked at by eye.

``python -m pipelines.demo.training.sample_sheets`` draws the one of all checkpoints that
the demo's README shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipelines.demo.build import ensure
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.movq import trained_movq
from pipelines.demo.checkpoints.safety_checker import FLAGGED
from pipelines.demo.training.evaluate import (
    ARTISTS,
    ask_for_figure,
    held_out_scenes,
    new_figures,
    trained_scenes,
)
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.demo.world.world import STYLES, random_scene, render
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.images.codec import from_image, to_image
from pipelines.request import Lora, Request, SafetyCheck, Upscaling

ACROSS = 8
GAP = 4


def autoencoder() -> Image.Image:
    vae = trained_autoencoder()
    return _code(512, lambda pictures: vae.decode(vae.encode(pictures).latent_dist.mean).sample)


def movq() -> Image.Image:
    vae, network = trained_autoencoder(), trained_movq()

    def code(pictures: Tensor) -> Tensor:
        latents = vae.encode(pictures).latent_dist.mean * vae.config["scaling_factor"]
        return network.decode(latents, force_not_quantize=True).sample

    return _code(512, code)


@torch.no_grad()
def _code(side: int, code: Callable[[Tensor], Tensor]) -> Image.Image:
    """Pictures, above the same pictures after an autoencoder."""
    rows = []
    for styles in ((), STYLES):
        pictures = [render(random_scene(seed), side, seed, styles) for seed in range(ACROSS)]
        coded = [to_image(code(from_image(each, side, side)), side, side) for each in pictures]
        rows += [pictures, coded]
    return _sheet(rows)


def family(name: str) -> Image.Image:
    """Trained combinations, combinations that were never trained on, and scenes of other sizes and places."""
    scenes = [
        *trained_scenes(ACROSS),
        *held_out_scenes(ACROSS),
        *(random_scene(seed) for seed in range(ACROSS)),
    ]
    return _draw([{"prompt": caption(scene)} for scene in scenes], name)


def sd3() -> Image.Image:
    """Figures in new poses, under their skeletons; the last row is drawn with half the strength."""
    figures = new_figures(ACROSS)
    asked = [
        ask_for_figure(caption(figure), figure.person, seed, controlnet_conditioning_scale=strength)
        for strength in (0.8, 0.4)
        for seed, figure in enumerate(figures)
    ]
    pictures = [image for (image,) in _local_loop().draw(asked)]
    skeletons = [each.image for each in asked[:ACROSS]]
    return _sheet([skeletons, pictures[:ACROSS], pictures[ACROSS:]])


def loras() -> Image.Image:
    """The same prompts without a LoRA, with each of the LoRAs, and with both."""
    prompts = [caption(scene) for scene in trained_scenes(ACROSS)]
    worn = [(), *((style,) for style in STYLES), STYLES]
    return _draw(
        [
            {"prompt": prompt, "loras": tuple(Lora(name=name) for name in names)}
            for names in worn
            for prompt in prompts
        ]
    )


def night_scene() -> Image.Image:
    """The same prompts without and with the embedding."""
    words = [f"a {scene.shapes[0].color} {scene.shapes[0].shape}" for scene in trained_scenes(ACROSS)]
    return _draw(
        [{"prompt": said} for said in words]
        + [{"prompt": f"{said}, night_scene", "embeddings": ("night_scene",)} for said in words]
    )


def upscaler() -> Image.Image:
    """Small pictures, enlarged by Pillow's bicubic filter and by the network."""
    small = [render(random_scene(seed), 64, seed) for seed in range(ACROSS)]
    bicubic = [from_pil(to_pil(each).resize((128, 128), Image.Resampling.BICUBIC)) for each in small]
    asked = [Upscaling(pipeline="small-x2", image=each, width=128, height=128) for each in small]
    return _sheet([small, bicubic, [image for (image,) in _local_loop().draw(asked)]])


def safety_checker() -> Image.Image:
    """Pictures that are flagged, above pictures that are not."""
    scenes = [FLAGGED, *(random_scene(seed) for seed in range(10 * ACROSS))]
    pictures = [render(scene, 256) for scene in scenes]
    asked = [
        SafetyCheck(pipeline="stable-diffusion-v1-5", image=each, width=256, height=256) for each in pictures
    ]
    flags = [drawing.flagged == (True,) for drawing in _local_loop().drawings(asked)]
    rows = [
        [each for each, flag in zip(pictures, flags, strict=True) if flag is side] for side in (True, False)
    ]
    return _sheet([row[:ACROSS] for row in rows])


SHEETS = {
    "autoencoder": autoencoder,
    "sd15": partial(family, "SD1.5"),
    "sdxl": partial(family, "SDXL"),
    "kolors": partial(family, "Kolors"),
    "movq": movq,
    "kandinsky_prior": partial(family, "Kandinsky 2.2"),
    "kandinsky22": partial(family, "Kandinsky 2.2"),
    "sd3": sd3,
    "striped": loras,
    "outlined": loras,
    "night_scene": night_scene,
    "upscaler": upscaler,
    "safety_checker": safety_checker,
}
"""The sheet of each training, by its name; networks that draw nothing have none. A checkpoint can be drawn
with when the weights of all checkpoints are there."""


def _local_loop() -> LocalLoop:
    return LocalLoop(ensure(Path(tempfile.gettempdir()) / "understudy-sample-sheets"))


def _draw(asked: Sequence[dict[str, Any]], name: str = "SD1.5") -> Image.Image:
    ask = ARTISTS[name]
    drawn = _local_loop().draw([ask(seed=index % ACROSS, **each) for index, each in enumerate(asked)])
    pictures = [image for (image,) in drawn]
    return _sheet([pictures[first : first + ACROSS] for first in range(0, len(pictures), ACROSS)])


def _sheet(rows: Sequence[Sequence[RGBImage]], side: int = 192) -> Image.Image:
    """Pictures in rows, each scaled to fit a square of ``side`` pixels."""
    width, height = ACROSS * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP
    whole = Image.new("RGB", (width, height), (255, 255, 255))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            scaled = to_pil(picture).resize((side, side), Image.Resampling.LANCZOS)
            whole.paste(scaled, (column * (side + GAP), row * (side + GAP)))
    return whole


def checkpoints() -> Image.Image:
    """A row of each checkpoint: four trained combinations and four held-out ones, or figures in new poses."""
    captions = [caption(scene) for scene in (*trained_scenes(ACROSS // 2), *held_out_scenes(ACROSS // 2))]
    asked: list[Request] = [ask(said, seed) for ask in ARTISTS.values() for seed, said in enumerate(captions)]
    asked += [ask_for_figure(caption(each), each.person, 1) for each in new_figures(ACROSS)]
    pictures = [image for (image,) in _local_loop().draw(asked)]
    return _sheet([pictures[first : first + ACROSS] for first in range(0, len(pictures), ACROSS)], 120)


if __name__ == "__main__":
    checkpoints().save(Path(__file__).parents[1] / "sample_sheet.jpg", quality=90)
