"""What the parameters of SD3 with its pose ControlNet do to the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.demo.captions import caption
from pipelines.demo.evaluate import (
    ask_for_figure,
    figures_heed_negative_prompts,
    mean_joint_error,
    new_figures,
)
from pipelines.demo.figure_match import has_colors, overlap
from pipelines.demo.joints import read_figure
from pipelines.demo.judge import read
from pipelines.demo.studio import Studio
from pipelines.flow_samplers import SAMPLERS
from pipelines.flow_sigmas import SIGMA_SCHEDULES
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice
from tests.meaning.looking import drawn

FIGURES = new_figures(4)


def ask(number: int, seed: int = 1, **changes: object) -> PoseToImage:
    figure = FIGURES[number]
    return ask_for_figure(caption(figure), figure.person, seed, **changes)


def reaches(image: RGBImage, number: int) -> bool:
    """Whether colours and pose are rather a figure's than any other's."""
    return has_colors(image, FIGURES[number]) and overlap(image, FIGURES[number]) > 0.5


def test_figures_stand_in_the_given_pose_in_the_colours_of_the_prompt(studio: Studio) -> None:
    """A part of what `pipelines.demo.evaluate` measures."""
    pictures = drawn(studio, [ask(number) for number in range(len(FIGURES))])
    assert sum(map(has_colors, pictures, FIGURES)) >= len(FIGURES) - 1
    assert mean_joint_error([read_figure(image) for image in pictures], FIGURES) < 0.05


def test_more_strength_keeps_closer_to_the_pose(studio: Studio) -> None:
    overlaps: list[float] = []
    for strength in (0.0, 0.3, 0.8):
        asked = [ask(number, controlnet_conditioning_scale=strength) for number in range(2)]
        overlaps.append(sum(map(overlap, drawn(studio, asked), FIGURES)) / 2)
    assert overlaps[0] + 0.1 < overlaps[1] < overlaps[2] - 0.04


def test_a_named_colour_disappears(studio: Studio) -> None:
    assert figures_heed_negative_prompts(studio.draw, FIGURES[:2]) >= 0.5


def test_samples_differ_and_mean_the_same(studio: Studio) -> None:
    (pictures,) = studio.draw([ask(0, seeds=(1, 2))])
    assert len(set(pictures)) == 2
    assert all(reaches(image, 0) for image in pictures)


def test_guidance_changes_the_picture_but_not_its_meaning(studio: Studio) -> None:
    low, high = drawn(studio, [ask(0, guidance_scale=scale) for scale in (2.0, 7.0)])
    assert low != high
    assert reaches(high, 0)


def test_more_steps_draw_closer(studio: Studio) -> None:
    """What the prompt leaves open; what it names, one step draws."""
    asked = [replace(ask(1), prompt="a yellow figure", num_inference_steps=steps) for steps in (1, 20)]
    few, many = drawn(studio, asked)
    assert (read(few).ground, read_figure(few)) == (None, None)
    assert read(many).ground
    assert read_figure(many)


GUIDED_LESS = ("euler_pp", "euler_ancestral_pp", "lcm")
"""Steer more strongly, or are meant for distilled weights, which need no guidance."""


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_reaches_prompt_and_pose(name: str, studio: Studio) -> None:
    guided = {"guidance_scale": 1.5} if name in GUIDED_LESS else {}
    choice = SchedulerChoice(name=name, sigma_schedule="sgm_uniform")
    (image,) = drawn(studio, [ask(0, scheduler=choice, **guided)])
    assert reaches(image, 0)


@pytest.mark.parametrize("schedule", [name for name in SIGMA_SCHEDULES if name != "sgm_uniform"])
def test_every_noise_schedule_reaches_prompt_and_pose(schedule: str, studio: Studio) -> None:
    (image,) = drawn(studio, [ask(1, scheduler=SchedulerChoice(name="dpmpp_2m", sigma_schedule=schedule))])
    assert reaches(image, 1)
