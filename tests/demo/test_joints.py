"""A figure's joints are read back from its picture alone, and nobody is seen where nobody stands."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipelines.demo.judging.joints import SeenFigure, joint_error, read_figure
from pipelines.demo.world.figure import STANDING, Figure, render_figure
from pipelines.demo.world.palette import PALETTE
from pipelines.demo.world.poses import random_figure
from pipelines.demo.world.world import random_scene, render
from pipelines.image_io import from_pil, to_pil
from tests.demo.spoiled import SPOILED, Change

FIGURES = tuple(random_figure(seed) for seed in range(8))
some_figures = pytest.mark.parametrize(
    "figure",
    [FIGURES[0], *(pytest.param(figure, marks=pytest.mark.slow) for figure in FIGURES[1:3])],
    ids=["figure0", "figure1", "figure2"],
)


def read(figure: Figure, change: Change = lambda picture: picture) -> SeenFigure | None:
    return read_figure(from_pil(change(to_pil(render_figure(figure, 256)))))


def error(figure: Figure, change: Change = lambda picture: picture) -> float:
    seen = read(figure, change)
    assert seen is not None
    assert (seen.color, seen.ground) == (figure.color, figure.ground)
    return joint_error(seen, figure.person)


def test_joints_are_where_they_were_drawn() -> None:
    errors = [error(figure) for figure in FIGURES]
    assert max(errors) < 0.04
    assert np.mean(errors) < 0.012


@pytest.mark.parametrize("change", SPOILED)
def test_joints_are_found_after_what_pictures_suffer(change: Change) -> None:
    assert np.mean([error(figure, change) for figure in FIGURES[:3]]) < 0.02


@pytest.mark.parametrize("figure", FIGURES[3:5])
def test_outlines_between_two_strong_colours_do_not_hide_the_figure_s_own(figure: Figure) -> None:
    assert error(figure, lambda picture: picture.filter(ImageFilter.GaussianBlur(2.2))) < 0.04


def test_after_all_of_it_joints_are_found_or_unclear() -> None:
    def spoil(picture: Image.Image) -> Image.Image:
        for change in reversed(SPOILED):
            picture = change(picture)
        return picture

    readings = [(read(figure, spoil), figure) for figure in FIGURES[:6]]
    found = [(seen, figure) for seen, figure in readings if seen]
    assert len(found) >= 4
    for seen, figure in found:
        assert (seen.color, seen.ground) == (figure.color, figure.ground)
        assert seen.explained > 0.74
        assert joint_error(seen, figure.person) < 0.04


@pytest.mark.parametrize(
    "size",
    [
        (512, 768),
        pytest.param((1024, 1024), marks=pytest.mark.slow),
        pytest.param((640, 384), marks=pytest.mark.slow),
    ],
)
def test_the_size_of_the_picture_does_not_matter(size: tuple[int, int]) -> None:
    for seed in (1, 2):
        figure = random_figure(seed, size)
        seen = read_figure(render_figure(figure, size))
        assert seen is not None
        assert joint_error(seen, figure.person, size) < 0.03


def test_a_person_of_other_proportions_is_read() -> None:
    seen = read_figure(render_figure(Figure("blue", "yellow", STANDING), (512, 768)))
    assert seen is not None
    assert joint_error(seen, STANDING, (512, 768)) < 0.02


def test_the_error_is_a_part_of_the_person_s_height() -> None:
    figure = FIGURES[0]
    joints = tuple(place for place in figure.person.body[:14] if place)
    exact = SeenFigure("red", "blue", joints, 1.0)
    assert joint_error(exact, figure.person) == 0
    neck, hips = joints[1], ((joints[8][0] + joints[11][0]) / 2, (joints[8][1] + joints[11][1]) / 2)
    trunk = (hips[0] - neck[0], hips[1] - neck[1])
    moved = SeenFigure("red", "blue", tuple((x + trunk[0], y + trunk[1]) for x, y in joints), 1.0)
    assert joint_error(moved, figure.person) == pytest.approx(0.3)


@some_figures
def test_another_pose_is_far_from_the_one_asked_for(figure: Figure) -> None:
    other = Figure(figure.color, figure.ground, FIGURES[-1].person)
    seen = read(other)
    assert seen is not None
    assert joint_error(seen, figure.person) > 0.08


@some_figures
def test_who_has_left_and_right_exchanged_is_not_right(figure: Figure) -> None:
    mirrored = read(figure, lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert mirrored is None or joint_error(mirrored, figure.person) > 0.15


@some_figures
def test_an_arm_that_is_not_there_is_not_found(figure: Figure) -> None:
    def without_left_forearm(picture: Image.Image) -> Image.Image:
        elbow, wrist = (np.array(figure.person.body[joint]) * 256 for joint in (6, 7))
        pixels = np.array(picture)
        rows, columns = np.indices((256, 256))
        places = np.stack([columns, rows], axis=-1)
        for part in np.linspace(0.3, 1, 20):
            near = np.linalg.norm(places - (elbow + part * (wrist - elbow)), axis=-1) < 12
            pixels[near] = PALETTE[figure.ground]
        return Image.fromarray(pixels)

    seen, whole = read(figure, without_left_forearm), read(figure)
    assert whole is not None
    assert seen is None or joint_error(seen, figure.person) > joint_error(whole, figure.person) + 0.003


@some_figures
def test_who_stands_on_the_head_is_not_read_as_some_upright_pose(figure: Figure) -> None:
    assert read(figure, lambda picture: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)) is None


@some_figures
def test_a_figure_that_melted_is_not_read(figure: Figure) -> None:
    assert read(figure, lambda picture: picture.filter(ImageFilter.GaussianBlur(12))) is None


def test_nobody_is_seen_where_nobody_stands() -> None:
    assert not [seed for seed in range(20) if read_figure(render(random_scene(seed), 256))]
    assert read_figure(from_pil(Image.new("RGB", (256, 256), PALETTE["blue"]))) is None
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert read_figure(from_pil(Image.fromarray(pixels))) is None


def test_a_figure_of_one_colour_is_no_figure() -> None:
    figure = FIGURES[0]
    flat = np.array(to_pil(render_figure(figure, 256)))
    flat[(flat != PALETTE[figure.ground]).any(axis=-1)] = PALETTE[figure.color]
    assert read_figure(from_pil(Image.fromarray(flat))) is None
