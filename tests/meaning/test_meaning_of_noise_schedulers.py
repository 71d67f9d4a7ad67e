"""Every noise scheduler reaches the prompt, but for two in the steps that pages draw by default."""

from __future__ import annotations

import pytest

from pipelines.demo.captions import caption
from pipelines.demo.evaluate import ARTISTS, trained_scenes
from pipelines.demo.studio import Studio
from pipelines.noise_scheduler_names import NAMES
from pipelines.request import SchedulerChoice
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
