"""Every pair of the layers around one evaluation, through the loop: both do what they promise, together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.denoising.loop import Loop
from pipelines.engine.pool import PipelinePool
from pipelines.messages import Drawn, Event, Failed, Progress
from pipelines.request import (
    Control,
    ImageToImage,
    Inpainting,
    Lora,
    Prompted,
    Request,
    SchedulerChoice,
    TextToImage,
)
from pipelines.weights.manifest import Manifest
from tests.drawing import array, image_of, largest_difference

SD15 = "stable-diffusion-v1-5"
WIDTH, HEIGHT = 96, 64
NATIVE = 8
"""Latents along the side of the pictures that the checkpoint was trained with, as far as it says here: so
panoramas have views, and the first pass of highres_fix is smaller."""

RANDOM = np.random.default_rng(4)
START, CONTROL_IMAGE, OTHER_CONTROL_IMAGE = (
    np.kron(RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    for _ in range(3)
)
REPAINTED = slice(24, HEIGHT)
"""Rows of the mask that are white."""
MASK = np.zeros_like(START)
MASK[REPAINTED] = 255

PLAIN: dict[str, Any] = {
    "pipeline": SD15,
    "prompt": "a red fox",
    "negative_prompt": "blurry",
    "width": WIDTH,
    "height": HEIGHT,
    "num_inference_steps": 3,
    "guidance_scale": 6.0,
    "seeds": (1, 2, 3),
    "scheduler": SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
}
FLAGS: Mapping[str, dict[str, Any]] = {
    "panorama": {"panorama": True},
    "self_attention": {"self_attention": True},
    "highres_fix": {"highres_fix": True},
    "controlnet": {"controls": (Control(name="canny", image=image_of(CONTROL_IMAGE), scale=2.0),)},
    "image to image": {"image": image_of(START), "strength": 0.7},
    "inpainting": {"image": image_of(START), "mask": image_of(MASK), "strength": 0.8},
    "lora": {"loras": (Lora(name="animie", scale=0.9),)},
    "tomesd": {"token_merging_ratio": 0.5},
}
SEEN = 1.05
"""A `seam` above this one; in pictures as noisy as these the strongest of a few neighbours are no sharper."""

EACH_ONCE = [
    ("panorama", "controlnet"),
    ("self_attention", "lora"),
    ("highres_fix", "inpainting"),
    ("image to image", "tomesd"),
]
"""Pairs for the quick run: every flag, with one other."""

PAIRS = [pair for pair in combinations(FLAGS, 2) if set(pair) != {"image to image", "inpainting"}]
PAIRS_BY_SPEED = [pair if pair in EACH_ONCE else pytest.param(pair, marks=pytest.mark.slow) for pair in PAIRS]


def request(*flags: str, **changes: Any) -> Any:
    values = PLAIN | {name: value for flag in flags for name, value in FLAGS[flag].items()} | changes
    if "mask" in values:
        return Inpainting(**values)
    return ImageToImage(**values) if "image" in values else TextToImage(**values)


class Stage:
    """A loop on the small checkpoint, and the pictures that it drew."""

    def __init__(self, manifest: Manifest) -> None:
        pool = PipelinePool(manifest, manifest.path.parent, torch.device("cpu"), budget_bytes=10**9)
        pool.open(SD15).modules["unet"].register_to_config(sample_size=NATIVE)
        self.loop = Loop(pool, 10**6)
        self._with: dict[tuple[str, ...], list[np.ndarray]] = {}

    def events(self, requests: Mapping[str, Request]) -> list[Event]:
        for name, each in requests.items():
            self.loop.submit(name, each)
        events: list[Event] = []
        while not self.loop.idle:
            events += self.loop.turn()
        assert not [event for event in events if isinstance(event, Failed)]
        return events

    def drawn(self, asked: Request) -> list[np.ndarray]:
        return pictures(self.events({"it": asked}))["it"]

    def drawn_with(self, *flags: str) -> list[np.ndarray]:
        """Once."""
        if flags not in self._with:
            self._with[flags] = self.drawn(request(*flags))
        return self._with[flags]


def pictures(events: list[Event]) -> dict[str, list[np.ndarray]]:
    return {
        event.ticket_id: [array(image) for image in event.drawing.images]
        for event in events
        if isinstance(event, Drawn)
    }


@pytest.fixture(scope="module")
def stage(random_manifest: Manifest) -> Stage:
    return Stage(random_manifest)


# What each flag promises: (the loop, the request with it and another flag, its pictures)


def edges_match(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    """Where everything is drawn anew the left edge goes on at the right one, as inside."""
    rows = REPAINTED if isinstance(asked, Inpainting) else slice(None)
    assert seam(drawn, rows) <= SEEN


def seam(drawn: list[np.ndarray], rows: slice) -> float:
    """Mean difference of the left and right columns, in those of the most different inner neighbours."""
    stacked = np.concatenate([picture[rows] for picture in drawn]).astype(int)
    columns = np.abs(np.diff(stacked, axis=1, append=stacked[:, :1])).mean(axis=(0, 2))[7::8]
    return float(columns[-1] / columns[:-1].max())


def outside_is_unchanged(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    assert all(np.array_equal(picture[MASK == 0], START[MASK == 0]) for picture in drawn)
    assert not any(np.array_equal(picture[MASK > 0], START[MASK > 0]) for picture in drawn)


def the_start_is_seen(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    """Another picture to begin with is another result; of one that is hardly changed more is left."""
    other = stage.drawn(replace(asked, image=image_of(CONTROL_IMAGE)))
    assert not np.array_equal(other, drawn)


def there_are_two_passes(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    total, once = (
        max(event.total for event in stage.events({"it": each}) if isinstance(event, Progress))
        for each in (asked, replace(asked, highres_fix=False))
    )
    assert total > once


def the_guide_is_followed(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    (control,) = asked.controls
    other = replace(control, image=image_of(OTHER_CONTROL_IMAGE))
    assert not np.array_equal(stage.drawn(replace(asked, controls=(other,))), drawn)


def strength_matters(stage: Stage, asked: Prompted, drawn: list[np.ndarray]) -> None:
    weaker = replace(asked, loras=(Lora(name="animie", scale=0.2),))
    assert not np.array_equal(stage.drawn(weaker), drawn)


PROMISES: Mapping[str, Callable[[Stage, Any, list[np.ndarray]], None]] = {
    "panorama": edges_match,
    "highres_fix": there_are_two_passes,
    "controlnet": the_guide_is_followed,
    "image to image": the_start_is_seen,
    "inpainting": outside_is_unchanged,
    "lora": strength_matters,
}


@pytest.mark.parametrize("pair", PAIRS_BY_SPEED, ids=" and ".join)
def test_both_do_what_they_promise(pair: tuple[str, str], stage: Stage) -> None:
    asked, drawn = request(*pair), stage.drawn_with(*pair)
    assert all(picture.shape == (HEIGHT, WIDTH, 3) for picture in drawn)
    assert len({picture.tobytes() for picture in drawn}) == len(asked.seeds)
    assert np.array_equal(stage.drawn(asked), drawn)
    for flag in pair:
        assert not any(map(np.array_equal, drawn, stage.drawn_with(flag)))
        if flag in PROMISES:
            PROMISES[flag](stage, asked, drawn)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag != "panorama"])
def test_without_a_panorama_the_edges_do_not_match(flag: str, stage: Stage) -> None:
    rows = REPAINTED if flag == "inpainting" else slice(None)
    assert seam(stage.drawn_with(flag), rows) > SEEN


@pytest.mark.parametrize("pair", PAIRS_BY_SPEED, ids=" and ".join)
def test_drawn_among_others_no_pixel_is_off_by_more_than_one(pair: tuple[str, str], stage: Stage) -> None:
    requests = {
        "pair": request(*pair),
        "others": request(*pair, seeds=(4,), num_inference_steps=4, guidance_scale=2.0),
        **{flag: request(flag, seeds=(5,)) for flag in pair},
    }
    together = pictures(stage.events(requests))["pair"]
    assert max(map(largest_difference, together, stage.drawn_with(*pair))) <= 1


@pytest.mark.slow
def test_everything_at_once_is_drawn_and_kept_outside_the_mask(stage: Stage) -> None:
    asked = request(*(flag for flag in FLAGS if flag != "image to image"))
    drawn = stage.drawn(asked)
    outside_is_unchanged(stage, asked, drawn)
    edges_match(stage, asked, drawn)
    assert np.array_equal(stage.drawn(asked), drawn)
    for flag in ("panorama", "self_attention", "controlnet"):
        rest = (each for each in FLAGS if each not in ("image to image", flag))
        assert not np.array_equal(stage.drawn(request(*rest, seeds=(1,))), drawn[:1]), flag
