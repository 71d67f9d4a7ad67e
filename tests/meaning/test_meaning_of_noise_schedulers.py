"""Every noise scheduler reaches the prompt, but for two in the steps that pages draw by default."""

from __future__ import annotations

from typing import get_args

import pytest

from pipelines.demo.captions import caption
from pipelines.demo.evaluate import ARTISTS, trained_scenes
from pipelines.demo.studio import Studio
from pipelines.noise_scheduler_names import NAMES
from pipelines.request import SchedulerChoice
from server.endpoints.segmind import kolors, sd15_img2img
from tests.meaning.looking import drawn, right

SCENES = trained_scenes(2)
ASK = ARTISTS["SD1.5"]


LONGER = ("PNDMScheduler", "KDPM2AncestralDiscreteScheduler")
"""Need more steps than others with the little world's schedule, which ends in deeper noise."""


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_reaches_the_prompt(name: str, studio: Studio) -> None:
    steps = {"num_inference_steps": 40} if name in LONGER else {}
    choice = SchedulerChoice(name=name)
    asked = [ASK(caption(scene), seed, scheduler=choice, **steps) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(studio, asked), SCENES)) >= 1


@pytest.mark.parametrize("name", get_args(kolors.Scheduler))
def test_schedulers_of_the_kolors_page_reach_the_prompt(name: kolors.Scheduler, studio: Studio) -> None:
    choice = kolors.noise_scheduler(name)
    asked = [ARTISTS["Kolors"](caption(scene), seed, scheduler=choice) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(studio, asked), SCENES)) >= 1


def test_a_scheduler_of_the_img2img_page_reaches_the_prompt_with_karras_sigmas(studio: Studio) -> None:
    """Its others are among those of the other page."""
    choice = sd15_img2img.NOISE_SCHEDULERS["DPM2 Karras"]
    asked = [ASK(caption(scene), seed, scheduler=choice) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(studio, asked), SCENES)) >= 1
