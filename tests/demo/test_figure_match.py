"""Figures that are rendered match what was asked for, others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.demo.judging.figure_match import has_colors
from pipelines.demo.world.figure import FIGURE_COLORS, render_figure
from pipelines.demo.world.palette import PALETTE
from pipelines.demo.world.poses import random_figure
from pipelines.image_io import RGBImage
from tests.demo.outlines import overlap

SIZES = ((256, 256), (416, 640))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_a_rendered_figure_matches_itself_and_nothing_else(seed: int, size: tuple[int, int]) -> None:
    figure, other = random_figure(seed, size), random_figure(seed + 100, size)
    picture = render_figure(figure, size)
    assert has_colors(picture, figure)
    assert overlap(picture, figure) > 0.99
    assert overlap(picture, other) < 0.7


@pytest.mark.parametrize(("color", "ground"), FIGURE_COLORS[::8])
def test_every_pair_of_colours_is_known_from_every_other(color: str, ground: str) -> None:
    figure = replace(random_figure(1), color=color, ground=ground)
    picture = render_figure(figure, 128)
    known = [
        pair for pair in FIGURE_COLORS if has_colors(picture, replace(figure, color=pair[0], ground=pair[1]))
    ]
    assert known == [(color, ground)]


def test_bare_ground_shows_no_figure() -> None:
    figure = random_figure(1)
    bare = RGBImage(128, 128, bytes(PALETTE[figure.ground]) * 128 * 128)
    assert not has_colors(bare, figure)
    assert overlap(bare, figure) == 0
