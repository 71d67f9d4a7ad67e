"""The safety checker: a real one of small size, with concepts that every picture matches, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from sd_drawing import array, build, draw, open_family, reference, seeded
from transformers import CLIPConfig, CLIPImageProcessor

from pipelines.manifest import Manifest, Source
from pipelines.request import TextToImage

PIPELINE = "stable-diffusion-v1-5"
REQUEST = TextToImage(
    pipeline=PIPELINE,
    prompt="a red fox",
    width=64,
    height=64,
    num_inference_steps=2,
    guidance_scale=7.5,
    seeds=(1, 2),
    safety_checker=True,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build(tmp_path_factory.mktemp("demo"))


def with_checker(manifest: Manifest, *, threshold: float) -> Manifest:
    """The manifest with a checker whose concepts every picture resembles more than -1 and less than 1."""
    folder = manifest.path.parent / f"checker {threshold}"
    torch.manual_seed(1)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            projection_dim=16,
        )
    )
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.constant_(checker.concept_embeds_weights, threshold)
    torch.nn.init.constant_(checker.special_care_embeds_weights, 2.0)
    checker.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    entry = manifest.pipeline(PIPELINE)
    parts = {**entry.parts, "safety_checker": Source(folder=Path(folder.name))}
    pipelines = {**manifest.pipelines, PIPELINE: entry.model_copy(update={"parts": parts})}
    return manifest.model_copy(update={"pipelines": pipelines})


def drawn_plainly(manifest: Manifest) -> Any:
    folder = manifest.path.parent / manifest.pipeline(PIPELINE).parts["safety_checker"].folder
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    plain.register_modules(
        safety_checker=StableDiffusionSafetyChecker.from_pretrained(folder),
        feature_extractor=CLIPImageProcessor.from_pretrained(folder),
    )
    return plain(
        REQUEST.prompt, width=64, height=64, num_inference_steps=2, guidance_scale=7.5, generator=seeded(1)
    )


def test_a_flagged_picture_is_black_and_says_so(manifest: Manifest) -> None:
    checked = with_checker(manifest, threshold=-2.0)
    pictures = draw(open_family(checked, PIPELINE), REQUEST)
    assert [picture.flagged for picture in pictures] == [True, True]
    assert all(not array(picture.image).any() for picture in pictures)
    plain = drawn_plainly(checked)
    assert plain.nsfw_content_detected == [True]
    assert not np.asarray(plain.images[0]).any()


def test_a_picture_that_is_not_flagged_is_left_as_it_is(manifest: Manifest) -> None:
    checked = with_checker(manifest, threshold=2.0)
    family = open_family(checked, PIPELINE)
    pictures = draw(family, REQUEST)
    assert [picture.flagged for picture in pictures] == [False, False]
    plain = drawn_plainly(checked)
    assert plain.nsfw_content_detected == [False]
    assert np.array_equal(array(pictures[0].image), np.asarray(plain.images[0]))
    assert "safety_checker" in family.modules


def test_the_checker_looks_only_when_it_is_asked(manifest: Manifest) -> None:
    family = open_family(with_checker(manifest, threshold=-2.0), PIPELINE)
    pictures = draw(family, replace(REQUEST, safety_checker=False))
    assert [picture.flagged for picture in pictures] == [None, None]
    assert array(pictures[0].image).any()


@pytest.mark.parametrize("pipeline", [PIPELINE, "sdxl"])
def test_a_checkpoint_without_a_checker_says_that_nobody_looked(pipeline: str, manifest: Manifest) -> None:
    picture = draw(open_family(manifest, pipeline), replace(REQUEST, pipeline=pipeline))[0]
    assert picture.flagged is None
    assert picture.warnings == (f"{pipeline} has no safety checker",)
