"""What the parameters of sd3-med-pose do to the picture."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from pipelines.demo.judging.figure_match import has_colors
from pipelines.demo.judging.joints import read_figure
from pipelines.demo.judging.judge import read
from pipelines.demo.training.evaluate import ask_for_figure, measure_figures, new_figures
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice
from pipelines.schedulers.flow.sampler import SAMPLERS
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES
from tests.demo.meaning.looking import FEWER_STEPS, TENTH, drawn, missed
from tests.demo.outlines import overlap

FIGURES = new_figures(4)


def ask(number: int, seed: int = 1, **changes: object) -> PoseToImage:
    figure = FIGURES[number]
    return ask_for_figure(caption(figure), figure.person, seed, **changes)


def reaches(image: RGBImage, number: int) -> bool:
    """Whether colours and pose are rather a figure's than any other's."""
    return has_colors(image, FIGURES[number]) and overlap(image, FIGURES[number]) > 0.5


@pytest.mark.slow
def test_a_part_of_the_table_meets_its_targets(local_loop: LocalLoop) -> None:
    assert missed(measure_figures(partial(ask_for_figure, **FEWER_STEPS), local_loop.draw, TENTH)) == {}


@pytest.mark.slow
def test_every_figure_stands_in_its_own_pose(local_loop: LocalLoop) -> None:
    pictures = drawn(local_loop, [ask(number) for number in range(len(FIGURES))])
    for image, figure in zip(pictures, FIGURES, strict=True):
        others = [overlap(image, other) for other in FIGURES if other is not figure]
        assert overlap(image, figure) > max(others) + 0.1


@pytest.mark.slow
def test_more_strength_keeps_closer_to_the_pose(local_loop: LocalLoop) -> None:
    overlaps: list[float] = []
    for strength in (0.0, 0.3, 0.8):
        asked = [ask(number, controlnet_conditioning_scale=strength, **FEWER_STEPS) for number in range(2)]
        overlaps.append(sum(map(overlap, drawn(local_loop, asked), FIGURES)) / 2)
    assert overlaps[0] + 0.1 < overlaps[1] < overlaps[2] - 0.04


@pytest.mark.slow
def test_samples_differ_and_mean_the_same(local_loop: LocalLoop) -> None:
    (pictures,) = local_loop.draw([ask(0, seeds=(1, 2))])
    assert len(set(pictures)) == 2
    assert all(reaches(image, 0) for image in pictures)


@pytest.mark.slow
def test_guidance_makes_the_prompt_count(local_loop: LocalLoop) -> None:
    low, high = drawn(local_loop, [ask(1, guidance_scale=scale) for scale in (1.0, 7.0)])
    assert not reaches(low, 1)
    assert reaches(high, 1)


@pytest.mark.slow
def test_more_steps_draw_closer(local_loop: LocalLoop) -> None:
    """What the prompt leaves open; what it names, one step draws."""
    asked = [replace(ask(1), prompt="a yellow figure", num_inference_steps=steps) for steps in (1, 20)]
    few, many = drawn(local_loop, asked)
    assert (read(few).ground, read_figure(few)) == (None, None)
    assert read(many).ground
    assert read_figure(many)


BY_DEFAULT = ("dpmpp_2m", "sgm_uniform")


def scheduled(sampler: str, schedule: str, local_loop: LocalLoop) -> RGBImage:
    choice = SchedulerChoice(name=sampler, sigma_schedule=schedule)
    return drawn(local_loop, [ask(0, scheduler=choice)])[0]


@pytest.fixture(scope="module")
def by_default(local_loop: LocalLoop) -> RGBImage:
    return scheduled(*BY_DEFAULT, local_loop)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [
        BY_DEFAULT,
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                *((name, BY_DEFAULT[1]) for name in SAMPLERS if name != BY_DEFAULT[0]),
                *((BY_DEFAULT[0], name) for name in SIGMA_SCHEDULES if name != BY_DEFAULT[1]),
            )
        ),
    ],
)
def test_every_sampler_and_noise_schedule_reaches_prompt_and_pose_in_its_own_way(
    sampler: str, schedule: str, local_loop: LocalLoop, by_default: RGBImage
) -> None:
    image = scheduled(sampler, schedule, local_loop)
    assert reaches(image, 0)
    assert (image == by_default) == ((sampler, schedule) == BY_DEFAULT)
