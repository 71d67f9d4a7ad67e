"""The safety checker: a real one of small size, with concepts that every picture matches, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from pipelines.errors import InvalidInput
from pipelines.image_io import RGBImage, from_pil
from pipelines.images.safety import replaced
from pipelines.request import Replacement, SafetyCheck
from pipelines.weights.entries import Source
from pipelines.weights.manifest import Manifest
from tests.drawing import array, draw, image_of, open_family, reference, seeded, small_request

PIPELINE = "stable-diffusion-v1-5"
REQUEST = small_request(num_inference_steps=2, seeds=(1, 2), safety_checker=True)


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


def test_a_checkpoint_without_a_checker_says_that_nobody_looked(manifest: Manifest) -> None:
    family = open_family(manifest, "sdxl")
    picture = draw(family, replace(REQUEST, pipeline="sdxl"))[0]
    assert picture.flagged is None
    assert picture.warnings == ("sdxl has no safety checker",)
    with pytest.raises(InvalidInput, match="sdxl has no safety checker"):
        family.encode(SafetyCheck(pipeline="sdxl", image=_noise(8, 8), width=8, height=8))


@pytest.mark.parametrize(("colour", "flagged"), [("red", True), ("blue", False), ("white", False)])
def test_the_demo_checker_has_a_word_on_pictures_that_are_sent(
    colour: str, flagged: bool, manifest: Manifest
) -> None:
    image = from_pil(Image.new("RGB", (60, 40), colour))
    asked = SafetyCheck(pipeline=PIPELINE, image=image, width=60, height=40)
    (picture,) = draw(open_family(manifest, PIPELINE), asked)
    assert (picture.flagged, picture.image) == (flagged, image)


def test_only_the_flagged_ones_of_several_pictures_are_replaced(manifest: Manifest) -> None:
    unlooked = draw(open_family(manifest, PIPELINE), replace(REQUEST, safety_checker=False))
    family = open_family(with_checker(manifest, threshold=2.0), PIPELINE)
    checker = family._safety_checker.module
    threshold_between(checker, [array(picture.image) for picture in unlooked])
    first, second = draw(family, replace(REQUEST, replacement="pixelate"))
    assert (first.flagged, second.flagged) == (True, False)
    assert second.image == unlooked[1].image
    assert first.image == replaced(unlooked[0].image, "pixelate")


def threshold_between(checker: Any, pictures: list[np.ndarray]) -> None:
    """Make the first picture's own embedding the only concept, and the second's likeness to it too little."""
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    with torch.no_grad():
        seen = processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt").pixel_values
        embeds = checker.visual_projection(checker.vision_model(seen)[1])
        likeness = torch.cosine_similarity(embeds[0], embeds[1], dim=0)
        checker.concept_embeds.copy_(embeds[0].expand_as(checker.concept_embeds))
        checker.concept_embeds_weights.fill_((1 + likeness) / 2)


@pytest.fixture
def chequers() -> RGBImage:
    """Squares of eight pixels, black and white, 96 x 64."""
    rows, columns = np.indices((64, 96)) // 8
    return image_of(np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2))


def test_blurred_squares_cannot_be_told_apart(chequers: RGBImage) -> None:
    middle = array(replaced(chequers, "blur"))[16:-16, 16:-16].astype(int)
    assert array(chequers).std() > 100
    assert middle.std() < 10


def test_a_pixelated_picture_has_sixteen_blocks_along_its_longer_side() -> None:
    coloured = np.random.default_rng(1).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    pixelated = array(replaced(image_of(coloured), "pixelate"))
    blocks = pixelated[::6, ::6]
    assert blocks.shape == (8, 16, 3)
    assert np.array_equal(pixelated, blocks.repeat(6, axis=0).repeat(6, axis=1))
    assert len(np.unique(blocks.reshape(-1, 3), axis=0)) > 100
    assert np.abs(blocks[0, 0] - coloured[:6, :6].reshape(-1, 3).mean(axis=0)).max() < 40


def test_the_text_is_written_across_the_middle_of_a_blurred_picture() -> None:
    grey = image_of(np.full((256, 512, 3), 90, np.uint8))
    written = array(replaced(grey, "sensitive_content_text"))
    assert {0, 255} <= set(np.unique(written))
    rows, columns = np.nonzero((written != 90).any(axis=2))
    assert 90 < rows.min() < 128 < rows.max() < 166
    assert columns.min() < 150
    assert columns.max() > 362


@pytest.mark.parametrize("by", get_args(Replacement))
@pytest.mark.parametrize("size", [(8, 8), (1, 3), (300, 17)])
def test_a_replacement_has_the_pictures_size(by: Replacement, size: tuple[int, int]) -> None:
    shown = replaced(_noise(*size), by)
    assert (shown.width, shown.height, len(shown.pixels)) == (*size, size[0] * size[1] * 3)


def _noise(width: int, height: int) -> RGBImage:
    return image_of(np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8))
