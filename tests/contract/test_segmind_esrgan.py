"""Segmind's page esrgan: its sample, defaults, limits and error texts."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pipelines.image_io import RGBImage
from pipelines.request import Upscaling
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import read
from server.endpoints.segmind.esrgan import Esrgan
from server.endpoints.segmind.page import Delivery
from server.errors import FieldError, NotFound
from tests.contract.segmind_refusal import NO_MANIFEST, refused
from tests.documented_bodies import ESRGAN as EXAMPLE

PICTURE = RGBImage(90, 60, bytes(90 * 60 * 3))
UPSCALERS = {"fine": {"source": {"folder": "fine"}}, "fast": {"source": {"folder": "fast"}}}
WITHOUT_FACES = Manifest.model_validate({"pipelines": {}, "upscalers": UPSCALERS})
MANIFEST = Manifest.model_validate(
    {"pipelines": {}, "upscalers": UPSCALERS, "face_restorers": {"faces": {"source": {"folder": "faces"}}}}
)

refusal = partial(refused, Esrgan, image="AAAA")


def page(**body: object) -> Esrgan:
    return read(Esrgan, {"image": "AAAA", **body})


def upscaling(**changes: Any) -> Upscaling:
    return Upscaling(**{"pipeline": "fine", "image": PICTURE, "width": 180, "height": 120, **changes})


def test_the_documented_example_becomes_exactly_this_request() -> None:
    fields = read(Esrgan, EXAMPLE)
    assert fields.to_request(MANIFEST, {"image": PICTURE}) == upscaling()
    assert fields.sent_pictures() == {"image": EXAMPLE["image"]}
    assert fields.delivery() == Delivery("jpeg", 95)


def test_the_example_in_the_documentation_is_the_page_s_own() -> None:
    assert Esrgan.example == EXAMPLE


def test_a_picture_alone_takes_every_documented_default() -> None:
    assert page().to_request(MANIFEST, {"image": PICTURE}) == upscaling()
    assert page().delivery() == Delivery("jpeg", 95)
    assert page().warnings(MANIFEST) == []


@pytest.mark.parametrize("scale", [2, 4, 8, "8", 4.0])
def test_every_scale_is_drawn(scale: object) -> None:
    request = page(scale=scale).to_request(MANIFEST, {"image": PICTURE})
    assert (request.width, request.height) == (90 * int(str(scale)[0]), 60 * int(str(scale)[0]))


@pytest.mark.parametrize("scale", [1, 3, 16, 0, -2])
def test_other_scales_are_outside_the_enumeration(scale: int) -> None:
    assert refusal(scale=scale) == (406, "scale: must be one of 2, 4, 8")


def test_a_scale_is_a_whole_number() -> None:
    assert refusal(scale="double") == (400, "scale: must be a whole number")


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_every_format_is_delivered_in_the_asked_quality(output_format: str) -> None:
    assert page(output_format=output_format, quality="31").delivery() == Delivery(output_format, 31)


def test_other_formats_and_qualities_are_refused() -> None:
    assert refusal(output_format="gif") == (406, "output_format: must be one of jpeg, png, webp")
    for outside in (9, 101):
        assert refusal(quality=outside) == (400, "quality: must be between 10 and 100")


def test_base64_answers_json_with_png() -> None:
    assert page(base64=True, output_format="webp").delivery() == Delivery("png", as_json=True)


def test_faces_are_restored_by_the_first_restorer_or_the_caller_is_told() -> None:
    asked = page(face_enhance="true")
    assert asked.to_request(MANIFEST, {"image": PICTURE}) == upscaling(face_restorer="faces")
    assert asked.warnings(MANIFEST) == []
    assert asked.to_request(WITHOUT_FACES, {"image": PICTURE}) == upscaling()
    assert asked.warnings(WITHOUT_FACES) == [
        "face_enhance: has no effect, because weights.yaml names no face restorer"
    ]


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"quality": 80}, []),
        ({"quality": 80, "output_format": "png"}, ["quality"]),
        ({"quality": 80, "output_format": "webp", "base64": True}, ["output_format", "quality"]),
        ({"base64": True}, []),
    ],
)
def test_format_and_quality_without_effect_are_warned_of(sent: dict[str, object], fields: list[str]) -> None:
    assert [text.partition(":")[0] for text in page(**sent).warnings(MANIFEST)] == fields


def test_without_an_upscaler_the_page_says_so() -> None:
    with pytest.raises(NotFound, match=r"This server has no upscaler: weights.yaml names none"):
        page().validate_names(NO_MANIFEST)
    page().validate_names(MANIFEST)


def test_more_than_32_megapixels_do_not_come_out() -> None:
    large = RGBImage(2000, 1001, b"")
    page(scale=4).to_request(MANIFEST, {"image": RGBImage(2000, 1000, b"")})
    with pytest.raises(FieldError) as raised:
        page(scale=4).to_request(MANIFEST, {"image": large})
    assert str(raised.value) == "scale: would make 32.0 megapixels; at most 32 may come out"


def test_the_price_is_that_of_one_picture() -> None:
    assert page(scale=8).price(Esrgan.price_millicredits) == 5
