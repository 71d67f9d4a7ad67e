"""What the parameters of SDXL, Kolors and Kandinsky 2.2 do to the picture, read by the judge."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from pipelines.demo.captions import caption
from pipelines.demo.evaluate import (
    ARTISTS,
    Ask,
    follows_prompts,
    heeds_negative_prompts,
    held_out_scenes,
    trained_scenes,
)
from pipelines.demo.judge import read
from pipelines.demo.studio import Studio
from pipelines.request import SchedulerChoice
from tests.meaning.looking import drawn, right

FEWER_STEPS: Mapping[str, Any] = {
    "num_inference_steps": 15,
    "scheduler": SchedulerChoice(name="DPMSolverMultistepScheduler"),
}
"""Than by default, which this scheduler does not mind."""
QUICK: Mapping[str, Mapping[str, Any]] = {
    "SDXL": FEWER_STEPS,
    "Kolors": FEWER_STEPS,
    "Kandinsky 2.2": {"width": 512, "height": 512},
}
SCENES = trained_scenes(4)


@pytest.fixture(params=QUICK)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def ask(family: str) -> Ask:
    return quick(family)


def quick(family: str) -> Ask:
    return partial(ARTISTS[family], **QUICK[family])


def test_trained_and_new_combinations_are_drawn(ask: Ask, studio: Studio) -> None:
    """A tenth of what `pipelines.demo.evaluate` measures."""
    known = follows_prompts(studio.draw, ask, trained_scenes(4))
    new = follows_prompts(studio.draw, ask, held_out_scenes(4))
    assert known.colors >= 0.9
    assert known.everything >= 0.7
    assert new.everything >= 0.5


def test_a_named_colour_disappears(ask: Ask, studio: Studio) -> None:
    assert heeds_negative_prompts(studio.draw, ask, 3) >= 0.6


def test_samples_differ_and_mean_the_same(ask: Ask, studio: Studio) -> None:
    scene = SCENES[0]
    (pictures,) = studio.draw([ask(caption(scene), 0, seeds=(1, 2, 3))])
    assert len(set(pictures)) == 3
    assert sum(right(image, scene) for image in pictures) >= 2


def test_guidance_makes_the_prompt_count(ask: Ask, studio: Studio) -> None:
    low, high = (
        drawn(studio, [ask(caption(scene), 1, guidance_scale=scale) for scene in SCENES[:2]])
        for scale in (1.0, 7.0)
    )
    assert sum(map(right, low, SCENES)) < sum(map(right, high, SCENES))


def test_kolors_reads_both_languages(studio: Studio) -> None:
    asked = [quick("Kolors")(caption(scene, "zh"), seed) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(studio, asked), SCENES)) >= 3


@pytest.mark.parametrize(
    ("name", "values"), [("prior_num_inference_steps", (1, 5, 25)), ("prior_guidance_scale", (1.0, 4.0, 8.0))]
)
def test_the_prior_mostly_finds_the_meaning_of_a_prompt_at_other_settings(
    name: str, values: tuple[float, ...], studio: Studio
) -> None:
    """Not always: in five steps at the page's guidance it takes this ground for another."""
    ask = quick("Kandinsky 2.2")
    pictures = drawn(studio, [ask(caption(SCENES[1]), 1, **{name: value}) for value in values])
    assert len(set(pictures)) == len(values)
    assert sum(read(image).ground == SCENES[1].ground for image in pictures) >= len(values) - 1


def test_a_prior_that_is_not_told_the_ground_imagines_several(studio: Studio) -> None:
    (pictures,) = studio.draw([quick("Kandinsky 2.2")("a red circle", 0, seeds=tuple(range(4)))])
    assert len({read(image).ground for image in pictures}) >= 2
