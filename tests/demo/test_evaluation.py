"""What `pipelines.demo.training.evaluate` counts, by artists who render what they want to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pipelines.demo.training.evaluate import (
    ARTISTS,
    Draw,
    Score,
    Target,
    follows_prompts,
    heeds_negative_prompts,
    trained_scenes,
)
from pipelines.demo.world.captions import caption
from pipelines.demo.world.world import ColoredShape, Scene, render, simple_scene
from pipelines.image_io import RGBImage
from pipelines.request import Request

ASK = ARTISTS["SD1.5"]
SCENES = trained_scenes(4)
NOTHING = RGBImage(64, 64, bytes(range(256)) * 48)


def artist(paint: Callable[[str, str | None], RGBImage]) -> Draw:
    """An artist who paints by a prompt and a negative one."""

    def draw(requests: Sequence[Request]) -> list[tuple[RGBImage, ...]]:
        return [(paint(each.prompt, each.negative_prompt),) for each in requests]

    return draw


def red_circle(ground: str) -> RGBImage:
    return render(simple_scene("circle", "red", ground), 64)


def test_pictures_are_right_in_colours_and_in_everything() -> None:
    first, second, third, _ = SCENES
    other_shape = Scene(second.ground, (ColoredShape("heart", second.shapes[0].color),))
    shown = {
        caption(first): render(first, 128),
        caption(second): render(other_shape, 128),
        caption(third): render(first, 128),
    }
    draw = artist(lambda prompt, _: shown.get(prompt, NOTHING))
    assert second.shapes[0].shape != "heart"
    assert follows_prompts(draw, ASK, SCENES) == Score(colors=0.5, everything=0.25)


def half_blue() -> RGBImage:
    """The upper half; the lower one is grey."""
    return RGBImage(64, 64, red_circle("blue").pixels[: 32 * 64 * 3] + bytes([128]) * (32 * 64 * 3))


@pytest.mark.parametrize(
    ("averse", "gone"),
    [(red_circle("green"), 1.0), (NOTHING, 1.0), (half_blue(), 0.0), (red_circle("blue"), 0.0)],
)
def test_a_colour_is_gone_where_hardly_any_of_the_edge_has_it(averse: RGBImage, gone: float) -> None:
    draw = artist(lambda _, negative: averse if negative == "a blue background" else red_circle("blue"))
    assert heeds_negative_prompts(draw, ASK, 3) == gone


def test_who_draws_no_ground_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no picture has a ground of a known colour"):
        heeds_negative_prompts(artist(lambda *_: NOTHING), ASK, 3)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(least=0.8), 0.8, True),
        (Target(least=0.8), 0.79, False),
        (Target(most=0.05), 0.05, True),
        (Target(most=0.05), 0.06, False),
    ],
)
def test_a_target_is_met_or_missed(target: Target, value: float, met: bool) -> None:
    assert target.met(value) is met
    assert target.met(value, 0.02)
