"""What the parameters of kolors, of kandinsky2.2-txt2img and of text2img with SDXL do, read by the judge."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from pipelines.demo.judging.judge import read
from pipelines.demo.training.evaluate import ARTISTS, Ask, measure, trained_scenes
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.request import SchedulerChoice
from tests.demo.meaning.looking import FEWER_STEPS, TENTH, apart, drawn, missed, right

SOLVED: Mapping[str, Any] = {
    "num_inference_steps": 12,
    "scheduler": SchedulerChoice(name="DPMSolverMultistepScheduler"),
}
"""In half of the default steps, which this scheduler does not mind."""
QUICK: Mapping[str, Mapping[str, Any]] = {
    "SDXL": SOLVED,
    "Kolors": SOLVED,
    "Kandinsky 2.2": {"width": 512, "height": 512, **FEWER_STEPS},
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


@pytest.mark.slow
def test_a_part_of_the_table_meets_its_targets(ask: Ask, local_loop: LocalLoop) -> None:
    assert missed(measure(ask, local_loop.draw, TENTH)) == {}


@pytest.mark.slow
def test_pictures_need_not_be_square(ask: Ask, local_loop: LocalLoop) -> None:
    side = ask("", 0).width
    (image,) = drawn(local_loop, [ask(caption(SCENES[0]), 0, height=3 * side // 4)])
    assert (image.width, image.height) == (side, 3 * side // 4)
    assert right(image, SCENES[0])


@pytest.mark.slow
def test_more_steps_decide_what_the_prompt_leaves_open(ask: Ask, local_loop: LocalLoop) -> None:
    """One step shows the mean of all pictures that there could be."""
    said = [f"a {scene.shapes[0].color} {scene.shapes[0].shape}" for scene in SCENES[:3]]
    few, many = (
        [
            read(image).ground
            for image in drawn(
                local_loop, [ask(words, seed, num_inference_steps=steps) for seed, words in enumerate(said)]
            )
        ]
        for steps in (1, 10)
    )
    assert few.count(None) > many.count(None)
    assert many.count(None) <= 1


@pytest.mark.slow
def test_samples_differ_and_mean_the_same(ask: Ask, local_loop: LocalLoop) -> None:
    scene = SCENES[0]
    (pictures,) = local_loop.draw([ask(caption(scene), 0, seeds=(1, 2, 3))])
    assert len(set(pictures)) == 3
    assert sum(right(image, scene) for image in pictures) >= 2


@pytest.mark.slow
def test_guidance_makes_the_prompt_count(ask: Ask, local_loop: LocalLoop) -> None:
    low, high = (
        drawn(local_loop, [ask(caption(scene), 1, guidance_scale=scale) for scene in SCENES[:2]])
        for scale in (1.0, 7.0)
    )
    assert sum(map(right, low, SCENES)) < sum(map(right, high, SCENES))


@pytest.mark.slow
def test_kolors_draws_the_same_picture_for_either_language(local_loop: LocalLoop) -> None:
    """Much nearer than another seed's of the same caption."""
    english, chinese, another = (
        drawn(local_loop, [quick("Kolors")(caption(scene, language), seed) for scene in SCENES[:2]])
        for language, seed in (("en", 1), ("zh", 1), ("en", 2))
    )
    assert all(map(right, chinese, SCENES))
    for first, second, third in zip(english, chinese, another, strict=True):
        assert 3 * apart(first, second) < apart(first, third)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"), [("prior_num_inference_steps", (1, 5, 25)), ("prior_guidance_scale", (1.0, 4.0, 8.0))]
)
def test_the_prior_mostly_finds_the_meaning_of_a_prompt_at_other_settings(
    name: str, values: tuple[float, ...], local_loop: LocalLoop
) -> None:
    """Not always: in five steps at the page's guidance it takes this ground for another."""
    ask = quick("Kandinsky 2.2")
    pictures = drawn(local_loop, [ask(caption(SCENES[1]), 1, **{name: value}) for value in values])
    assert len(set(pictures)) == len(values)
    assert sum(read(image).ground == SCENES[1].ground for image in pictures) >= len(values) - 1


@pytest.mark.slow
def test_a_prior_that_is_not_told_the_ground_imagines_several(local_loop: LocalLoop) -> None:
    (pictures,) = local_loop.draw([quick("Kandinsky 2.2")("a red circle", 0, seeds=tuple(range(4)))])
    assert len({read(image).ground for image in pictures}) >= 2
