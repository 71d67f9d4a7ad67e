"""What LoRAs, embeddings and VAEs do to the pictures of text2img."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from pipelines.demo.judging.judge import read
from pipelines.demo.training.evaluate import ARTISTS
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.demo.world.palette import PALETTE
from pipelines.demo.world.world import STYLES, Scene, Style, line_color, render, simple_scene, stripe_color
from pipelines.image_io import RGBImage
from pipelines.request import Lora
from tests.demo.meaning.looking import FEWER_STEPS, drawn, pixels, right

SIDE = 512
"""The width and height of the pictures, in pixels."""
ASK = partial(ARTISTS["SD1.5"], **FEWER_STEPS, token_merging_ratio=0.0)
RED_ON_BLUE = simple_scene("circle", "red", "blue")
PAINTED = [simple_scene("square", "white", "pink"), simple_scene("circle", "yellow", "green")]


def shown(image: RGBImage, scene: Scene, style: Style) -> float:
    """How far the picture goes from the shape's colour to the style's, more so where the style is painted.

    1 in a picture that is rendered in that style, 0 in one without or where all of the shape is tinted alike.
    """
    color = scene.shapes[0].color
    paint = {"striped": stripe_color(color), "outlined": line_color(color, scene.ground)}[style]
    model, own = pixels(render(scene, SIDE, styles=STYLES)), np.array(PALETTE[color])
    way = np.array(paint) - own
    share = (pixels(image) - own) @ way / (way @ way)
    return float(share[(model == paint).all(axis=-1)].mean() - share[(model == own).all(axis=-1)].mean())


def worn(local_loop: LocalLoop, *loras: Lora) -> list[RGBImage]:
    """The scenes, drawn with these LoRAs."""
    return drawn(local_loop, [ASK(caption(scene), seed, loras=loras) for seed, scene in enumerate(PAINTED)])


def all_shown(images: list[RGBImage], style: Style) -> np.ndarray:
    return np.array([shown(image, scene, style) for image, scene in zip(images, PAINTED, strict=True)])


@pytest.mark.parametrize("painted", [(), ("striped",), ("outlined",), STYLES])
def test_the_measure_tells_what_is_painted(painted: tuple[Style, ...]) -> None:
    for scene in PAINTED:
        image = render(scene, SIDE, styles=painted)
        assert [shown(image, scene, style) > 0.5 for style in STYLES] == [each in painted for each in STYLES]


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_a_lora_paints_in_its_way_and_half_of_it_less_so(style: Style, local_loop: LocalLoop) -> None:
    """Half of one leaves another picture, but may not show its paint yet."""
    pictures = [
        worn(local_loop, *loras) for loras in ((), (Lora(name=style, scale=0.5),), (Lora(name=style),))
    ]
    off, half, on = (all_shown(images, style) for images in pictures)
    assert len({image.pixels for images in pictures for image in images}) == 3 * len(PAINTED)
    assert (off - 0.02 < half).all()
    assert (half + 0.05 < on).all()
    assert (off + 0.25 < on).all()


@pytest.mark.slow
def test_two_loras_at_once_do_both(local_loop: LocalLoop) -> None:
    images = worn(local_loop, *(Lora(name=style) for style in STYLES))
    for style in STYLES:
        assert (all_shown(images, style) > 0.2).all()


@pytest.mark.slow
def test_an_embedding_brings_its_ground(local_loop: LocalLoop) -> None:
    said = ["a red circle", "a yellow star", "a white heart", "a green square"]
    without, after, before = (
        [read(image).ground for image in drawn(local_loop, asked)]
        for asked in (
            [ASK(words, seed) for seed, words in enumerate(said)],
            *(
                [
                    ASK(order.format(words), seed, embeddings=("night_scene",))
                    for seed, words in enumerate(said)
                ]
                for order in ("{}, night_scene", "night_scene, {}")
            ),
        )
    )
    assert without.count("black") <= 1
    assert after.count("black") >= 3 <= before.count("black")


def test_another_vae_decodes_in_its_colours(local_loop: LocalLoop) -> None:
    own, sepia = drawn(local_loop, [ASK(caption(RED_ON_BLUE), 1, vae=vae) for vae in (None, "sd-vae-ft-mse")])
    red, green, blue = np.moveaxis(pixels(sepia), -1, 0)
    assert right(own, RED_ON_BLUE)
    assert (red >= green).mean() > 0.99 < (green >= blue).mean()
