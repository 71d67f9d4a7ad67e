"""Every scheduler of text2img, sd1.5-img2img and kolors reaches the prompt in the page's default steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from pipelines.demo.training.evaluate import ARTISTS
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.demo.world.world import render, simple_scene
from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage, Request, SchedulerChoice
from pipelines.schedulers.names import ALGORITHM_TYPES, NAMES, WITH_KARRAS_SIGMAS
from server.endpoints.segmind import kolors, stable_diffusion
from tests.demo.meaning.looking import apart, drawn, pixels, prompted, right

pytestmark = pytest.mark.slow

SCENE = simple_scene("star", "black", "brown")
SAME = 0.001
"""Between pictures that differ by rounding alone, in bytes; the least of others is 0.008."""

SIDE = 256
"""Pixels: the least of the pages."""

ask = partial(ARTISTS["SD1.5"], caption(SCENE), 1, width=SIDE, height=SIDE, token_merging_ratio=0.0)


def pictures(
    local_loop: LocalLoop, choices: Mapping[str, SchedulerChoice], ask: Callable[..., Request] = ask
) -> dict[str, RGBImage]:
    """The picture of each choice, all drawn together; each has to show the scene."""
    images = drawn(local_loop, [ask(scheduler=choice) for choice in choices.values()])
    assert [name for name, image in zip(choices, images, strict=True) if not right(image, SCENE)] == []
    return dict(zip(choices, images, strict=True))


def alike(images: Mapping[str, RGBImage]) -> list[set[str]]:
    """Names whose pictures are the same but for rounding."""
    return [
        {name, other} for name, other in combinations(images, 2) if apart(images[name], images[other]) < SAME
    ]


def test_every_scheduler_reaches_the_prompt_in_its_own_way(local_loop: LocalLoop) -> None:
    """The schedulers draw on Karras' sigmas, as the page has it, and on their own."""
    by_karras = pictures(
        local_loop, {name: SchedulerChoice(name=name, use_karras_sigmas=True) for name in NAMES}
    )
    assert alike(by_karras) == [
        {"DDPMScheduler", "EulerAncestralDiscreteScheduler"},  # as much new noise at every step
        {"DDIMScheduler", "DDIMInverseScheduler"},  # from noise the same steps
        {"PNDMScheduler", "IPNDMScheduler"},  # the same weights of the last four predictions
    ]
    by_its_own = pictures(
        local_loop, {name: SchedulerChoice(name=name, use_karras_sigmas=False) for name in WITH_KARRAS_SIGMAS}
    )
    assert all(apart(by_karras[name], image) > SAME for name, image in by_its_own.items())


def test_every_algorithm_of_dpm_solvers_reaches_the_prompt_in_its_own_way(local_loop: LocalLoop) -> None:
    choices = {
        f"{name}, {algorithm}": SchedulerChoice(name=name, use_karras_sigmas=True, algorithm_type=algorithm)
        for name, algorithms in ALGORITHM_TYPES.items()
        for algorithm in algorithms
    }
    assert alike(pictures(local_loop, choices)) == []


def test_schedulers_of_the_kolors_page_reach_the_prompt_in_their_own_ways(local_loop: LocalLoop) -> None:
    choices = {name: kolors.noise_scheduler(name) for name in get_args(kolors.Scheduler)}
    assert alike(pictures(local_loop, choices, partial(ARTISTS["Kolors"], caption(SCENE), 1))) == []


def test_schedulers_of_the_img2img_page_draw_a_picture_over_in_their_own_ways(local_loop: LocalLoop) -> None:
    begin = render(simple_scene("star", "red", "white"), SIDE)

    def ask_over(scheduler: SchedulerChoice) -> ImageToImage:
        return ImageToImage(**prompted(ask(scheduler=scheduler)), image=begin, strength=0.75)

    images = pictures(local_loop, dict(stable_diffusion.NOISE_SCHEDULERS), ask_over)
    assert alike(images) == [{"Euler a", "DDPM"}]


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5])
def test_whatever_is_drawn_over_weakly_has_no_more_grain_than_ddim_gives_it(
    local_loop: LocalLoop, strength: float
) -> None:
    """The picture is a plain one: grain in it was drawn."""
    plain = RGBImage(SIDE, SIDE, bytes((40, 90, 160)) * SIDE**2)
    choices = {
        **stable_diffusion.NOISE_SCHEDULERS,
        **{name: SchedulerChoice(name=name) for name in NAMES},
        **{
            f"{name} karras": SchedulerChoice(name=name, use_karras_sigmas=True)
            for name in WITH_KARRAS_SIGMAS
        },
    }
    requests = [
        ImageToImage(**prompted(ask(scheduler=choice)), image=plain, strength=strength)
        for choice in choices.values()
    ]
    images = drawn(local_loop, requests)
    grains = {name: grain(image) for name, image in zip(choices, images, strict=True)}
    assert {name: each for name, each in grains.items() if each > 2 * grains["DDIM"]} == {}


def grain(image: RGBImage) -> float:
    """The mean difference between a value and its left and upper neighbours' mean, in bytes."""
    values = pixels(image)
    around = (values[:-1, 1:] + values[1:, :-1]) / 2
    return float(np.abs(values[1:, 1:] - around).mean())
