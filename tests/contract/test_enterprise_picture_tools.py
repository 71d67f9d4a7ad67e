"""super_resolution and nsfw_image_check: fields, limits, and the requests that they become."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.image_io import RGBImage
from pipelines.request import SafetyCheck, Upscaling
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.nsfw_image_check import NsfwImageCheck
from server.endpoints.enterprise.super_resolution import SuperResolution
from server.endpoints.enterprise.wire import by_field
from server.endpoints.fields import field_errors
from server.errors import FieldError, NotFound

CHECKED = {"pipeline": {"folder": "p"}, "safety_checker": {"folder": "s"}}
MANIFEST = Manifest.model_validate(
    {
        "pipelines": {
            "plain": {"family": "sd15", "parts": {"pipeline": {"folder": "p"}}, "resident": True},
            "checked": {"family": "sd15", "parts": CHECKED},
            "checked at start": {"family": "sdxl", "parts": CHECKED, "resident": True},
        },
        "upscalers": {"fast": {"source": {"file": "f"}}, "fine": {"source": {"file": "g"}}},
        "face_restorers": {"faces": {"source": {"file": "h"}}, "others": {"source": {"file": "i"}}},
    }
)
NOTHING = Manifest.model_validate({"pipelines": {"plain": MANIFEST.pipelines["plain"]}})
PICTURE = RGBImage(30, 20, bytes(30 * 20 * 3))


def upscaling(manifest: Manifest = MANIFEST, picture: RGBImage = PICTURE, **fields: object) -> Upscaling:
    return SuperResolution.model_validate({"url": "x", **fields}).to_request(manifest, {"url": picture})


@pytest.mark.parametrize(
    ("scale", "size"),
    [(None, (60, 40)), (1, (30, 20)), ("1", (30, 20)), ("2", (60, 40)), (3, (90, 60)), (4, (120, 80))],
)
def test_the_result_is_so_many_times_as_wide_and_high(scale: object, size: tuple[int, int]):
    assert upscaling(scale=scale) == Upscaling(pipeline="fast", image=PICTURE, width=size[0], height=size[1])


def test_another_upscaler_is_chosen_by_its_name():
    assert upscaling(model_id="fine").pipeline == "fine"
    with pytest.raises(NotFound, match="Model id not found"):
        upscaling(model_id="plain")


def test_the_vendors_defaults_are_the_first_upscaler():
    for name in ("realesr-general-x4v3", "ultra_resolution"):
        fields = SuperResolution.model_validate({"url": "x", "model_id": name})
        drawn = fields.to_request(MANIFEST, {"url": PICTURE})
        assert (drawn.pipeline, fields.warning(drawn)) == ("fast", None)


@pytest.mark.parametrize(
    "name", ["RealESRGAN_x4plus", "RealESRNet_x4plus", "RealESRGAN_x4plus_anime_6B", "RealESRGAN_x2plus"]
)
def test_another_documented_upscaler_is_itself_where_it_is_here_and_else_replaced_with_a_word(name: str):
    fields = SuperResolution.model_validate({"url": "x", "model": name})
    drawn = fields.to_request(MANIFEST, {"url": PICTURE})
    assert drawn.pipeline == "fast"
    assert fields.warning(drawn) == f"{name} is not on this server; fast was used instead"
    upscalers = {**MANIFEST.upscalers, name: MANIFEST.upscalers["fine"]}
    drawn = fields.to_request(MANIFEST.model_copy(update={"upscalers": upscalers}), {"url": PICTURE})
    assert (drawn.pipeline, fields.warning(drawn)) == (name, None)


@pytest.mark.parametrize(("face_enhance", "face_restorer"), [("yes", "faces"), (True, "faces"), ("no", None)])
def test_faces_are_restored_by_the_first_that_can(face_enhance: object, face_restorer: str | None):
    assert upscaling(face_enhance=face_enhance).face_restorer == face_restorer


def test_what_cannot_be_enlarged_is_refused_by_name():
    with pytest.raises(NotFound, match="no upscaler"):
        upscaling(NOTHING)
    faceless = MANIFEST.model_copy(update={"face_restorers": {}})
    with pytest.raises(FieldError, match=r"^face_enhance: needs a face restorer: weights.yaml names none in"):
        upscaling(faceless, face_enhance="true")
    assert upscaling(faceless, face_enhance="false").face_restorer is None
    large = RGBImage(4000, 2001, b"")
    with pytest.raises(FieldError, match=r"^scale: would make 32\.0 megapixels; at most 32 may come out"):
        upscaling(picture=large, scale=2)
    assert upscaling(picture=RGBImage(4000, 2000, b""), scale=2).width == 8000


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({}, {"url": ["The url field is required."]}),
        ({"url": "x", "scale": 5}, {"scale": ["scale must be one of 1, 2, 3, 4"]}),
        ({"url": "x", "face_enhance": "maybe"}, {"face_enhance": ["face_enhance must be true or false"]}),
        ({"url": 5}, {"url": ["url must be base64 text, a URL or a file"]}),
    ],
)
def test_limits_are_said_in_the_callers_words(body: dict[str, Any], texts: dict[str, list[str]]):
    with pytest.raises(ValidationError) as caught:
        SuperResolution.model_validate(body)
    assert by_field(field_errors(SuperResolution, caught.value)) == texts


def test_a_picture_is_shown_to_a_checker_that_is_loaded_already():
    fields = NsfwImageCheck.model_validate({"init_image": "x"})
    assert fields.to_request(MANIFEST, {"init_image": PICTURE}) == SafetyCheck(
        pipeline="checked at start", image=PICTURE, width=30, height=20
    )


def test_a_server_without_a_checker_says_so():
    with pytest.raises(NotFound, match="no safety checker"):
        NsfwImageCheck.model_validate({"init_image": "x"}).to_request(NOTHING, {"init_image": PICTURE})
