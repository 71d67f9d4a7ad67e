"""GroupKey: everything that one network evaluation shares, and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import pytest

from pipelines.group import GroupKey, group_key, round_up
from pipelines.image_io import RGBImage
from pipelines.request import Control, Lora, Request, TextToImage

SHARED = {"pipeline", "height", "width", "loras", "token_merging_ratio", "controls"}
"""Carried by the key."""

PER_SAMPLE = {
    # conditioning
    "prompt", "negative_prompt", "prompt_weighting", "clip_skip", "embeddings", "image", "mask",
    "controlnet_conditioning_scale", "guess_mode",
    # the sampler and its start
    "num_inference_steps", "prior_num_inference_steps", "scheduler", "strength", "seeds", "panorama",
    # guidance
    "guidance_scale", "prior_guidance_scale", "self_attention",
    # decoding, one picture at a time
    "vae", "safety_checker", "replacement",
    # the way from one pass to the next
    "highres_fix", "upscaler", "face_restorer", "original",
    "kind",
    # no samples at all
    "texts",
}  # fmt: skip
"""Carried by the Sample: its conditioning, its sampler, its guidance, its way to the finished picture."""

REQUEST = TextToImage(
    pipeline="a", prompt="x", width=512, height=512, num_inference_steps=5, guidance_scale=7.0, seeds=(1,)
)


@pytest.mark.parametrize("kind", get_args(Request), ids=lambda kind: kind.__name__)
def test_every_field_of_a_request_is_either_shared_or_carried_by_the_sample(kind: type):
    names = {field.name for field in fields(kind)}
    assert names - SHARED - PER_SAMPLE == set()


@pytest.mark.parametrize(
    "change",
    [
        {"pipeline": "b"},
        {"width": 520},
        {"height": 520},
        {"loras": (Lora(name="l", scale=0.5),)},
        {"token_merging_ratio": 0.5},
        {"controls": (Control(name="canny", image=RGBImage(0, 0, b"")),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_shared_field_makes_another_key(change: dict[str, object]):
    assert set(change) <= SHARED
    assert group_key(replace(REQUEST, **change)) != group_key(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "y"},
        {"seeds": (2, 3)},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 50},
        {"clip_skip": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_of_the_sample_makes_no_other_key(change: dict[str, object]):
    assert set(change) <= PER_SAMPLE
    assert group_key(replace(REQUEST, **change)) == group_key(REQUEST)


def test_pictures_and_scales_of_controlnets_are_the_samples_own():
    one = Control(name="canny", image=RGBImage(0, 0, b""), scale=0.5)
    other = Control(name="canny", image=RGBImage(1, 1, b"abc"), preprocessor="canny")
    assert group_key(replace(REQUEST, controls=(one,))) == group_key(replace(REQUEST, controls=(other,)))


def test_sizes_that_are_drawn_alike_share_a_key():
    assert group_key(replace(REQUEST, height=700)) == group_key(replace(REQUEST, height=704))
    assert group_key(REQUEST, stage="prior") == GroupKey("a", "prior", 512, 512)


@pytest.mark.parametrize(("pixels", "drawn"), [(1, 64), (64, 64), (65, 128), (1000, 1024)])
def test_the_workable_size_is_the_next_multiple(pixels: int, drawn: int):
    assert round_up(pixels, 64) == drawn
