"""The documented img2img and inpaint pages of the enterprise dialect: samples, defaults, limits, texts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.image_io import RGBImage
from pipelines.request import ImageToImage, Inpainting, SchedulerChoice
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.meta import request_meta
from server.endpoints.enterprise.drawing.picture_fields import InitImageFields
from server.endpoints.enterprise.img2img import Img2Img
from server.endpoints.enterprise.inpaint import Inpaint
from server.endpoints.enterprise.wire import by_field
from server.endpoints.fields import field_errors
from server.errors import FieldError
from tests.documented_bodies import IMG2IMG_AND_INPAINT

MANIFEST = Manifest.model_validate(
    {"pipelines": {"sd": {"family": "sd15", "parts": {"pipeline": {"folder": "sd"}}}}}
)
IMAGE = RGBImage(512, 512, bytes(512 * 512 * 3))
MASK = RGBImage(512, 512, bytes(range(256)) * (512 * 6))
PICTURES = {"init_image": IMAGE, "mask_image": MASK}

SAMPLE = {**IMG2IMG_AND_INPAINT, "model_id": "sd"}
"""What the samples of both pages have, with a checkpoint of the manifest."""

CANONICAL: dict[str, Any] = {
    "pipeline": "sd",
    "prompt": "a cat sitting on a bench",
    "negative_prompt": "",
    "width": 512,
    "height": 512,
    "guidance_scale": 7.5,
    "seeds": (7, 8),
    "scheduler": SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
    "prompt_weighting": True,
    "strength": 0.7,
    "replacement": "sensitive_content_text",
    "image": IMAGE,
}

PAGES: list[type[InitImageFields]] = [Img2Img, Inpaint]


def read(page: type[InitImageFields], **changes: object) -> InitImageFields:
    return page.model_validate({**SAMPLE, "mask_image": "https://example.com/mask.png", **changes})


def texts(page: type[InitImageFields], **changes: object) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        read(page, **changes)
    return by_field(field_errors(page, caught.value))


def test_img2imgs_own_sample_becomes_exactly_this_request():
    fields = Img2Img.model_validate({**SAMPLE, "num_inference_steps": "30"})
    assert fields.to_request(MANIFEST, PICTURES) == ImageToImage(**CANONICAL, num_inference_steps=30)


def test_inpaints_own_sample_says_steps_and_becomes_exactly_this_request():
    fields = Inpaint.model_validate({**SAMPLE, "mask_image": "https://example.com/mask.png", "steps": "21"})
    assert fields.to_request(MANIFEST, PICTURES) == Inpainting(**CANONICAL, mask=MASK, num_inference_steps=21)


def test_the_steps_are_those_of_each_page():
    assert read(Img2Img).num_inference_steps == 21
    assert read(Inpaint).num_inference_steps == 20


@pytest.mark.parametrize("page", PAGES)
def test_strength_is_seven_tenths_unless_said(page: type[InitImageFields]):
    assert read(page, strength=None).strength == 0.7


@pytest.mark.parametrize("page", PAGES)
def test_strength_has_limits_on_both_sides(page: type[InitImageFields]):
    for inside in ("0.05", 1, "1.0"):
        read(page, strength=inside).validate_together()
    for outside in (-0.1, 1.01, "2"):
        assert texts(page, strength=outside) == {"strength": ["strength must be between 0 and 1"]}
    assert texts(page, strength="much") == {"strength": ["strength must be a number"]}


@pytest.mark.parametrize("page", PAGES)
def test_a_strength_that_leaves_no_step_is_refused_before_anything_is_charged(page: type[InitImageFields]):
    with pytest.raises(FieldError, match="strength: leaves none of 10 steps to draw; raise either"):
        read(page, strength=0.09, num_inference_steps=10).validate_together()
    read(page, strength=0.1, num_inference_steps=10).validate_together()


@pytest.mark.parametrize(
    ("page", "field"), [(Img2Img, "init_image"), (Inpaint, "init_image"), (Inpaint, "mask_image")]
)
@pytest.mark.parametrize("nothing", [None, ""])
def test_pictures_are_required(page: type[InitImageFields], field: str, nothing: object):
    assert texts(page, **{field: nothing}) == {field: [f"The {field} field is required."]}
    assert texts(page, **{field: 5}) == {field: [f"{field} must be base64 text, a URL or a file"]}


@pytest.mark.parametrize("page", PAGES)
def test_text2imgs_limits_hold_here_too(page: type[InitImageFields]):
    assert texts(page, width=1032, samples=5) == {
        "width": ["width must be between 256 and 1024"],
        "samples": ["samples must be between 1 and 4"],
    }


@pytest.mark.parametrize("page", PAGES)
def test_meta_repeats_what_was_redrawn_how_much_but_no_picture(page: type[InitImageFields]):
    fields = read(page)
    meta = request_meta(fields, fields.to_request(MANIFEST, PICTURES), MANIFEST.pipelines["sd"])
    assert (meta["strength"], meta["init_image"]) == (0.7, SAMPLE["init_image"])
    assert read(page, init_image="iVBORw0KGgo=").own_meta()["init_image"] is None


@pytest.mark.parametrize("page", PAGES)
def test_a_list_of_one_picture_is_that_picture(page: type[InitImageFields]):
    assert read(page, init_image=["https://example.com/a.png"]).init_image == "https://example.com/a.png"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("junk", [[], [5], [None], [["https://example.com/a.png"]], {}])
def test_a_list_without_a_picture_is_refused(page: type[InitImageFields], junk: object):
    said = "init_image must be base64 text, a URL or a file"
    assert texts(page, init_image=junk) == {"init_image": [said]}


@pytest.mark.parametrize("page", PAGES)
def test_several_pictures_are_refused_where_one_is_taken(page: type[InitImageFields]):
    said = "init_image must be one picture, not a list of several"
    assert texts(page, init_image=["https://example.com/a.png"] * 2) == {"init_image": [said]}
