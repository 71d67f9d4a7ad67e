"""The documented page kandinsky2.2-txt2img: its example, defaults, limits and error texts."""

from __future__ import annotations

from functools import partial

import pytest

from pipelines.request import PriorTextToImage
from server.endpoints.fields import read
from server.endpoints.segmind.kandinsky22_txt2img import Kandinsky22Page
from server.endpoints.segmind.page import Delivery
from tests.contract.segmind_refusal import NO_MANIFEST, refused
from tests.documented_bodies import KANDINSKY22 as EXAMPLE

SIDES = [512, 576, 640, 704, 768, 832, 896, 960, 1024]


refusal = partial(refused, Kandinsky22Page, prompt="a cat")


def test_the_documented_example_becomes_exactly_this_request() -> None:
    page = read(Kandinsky22Page, EXAMPLE)
    assert page.to_request(NO_MANIFEST, {}) == PriorTextToImage(
        pipeline="kandinsky-2-2",
        prompt=EXAMPLE["prompt"],
        negative_prompt=EXAMPLE["negative_prompt"],
        width=512,
        height=768,
        num_inference_steps=25,
        prior_num_inference_steps=25,
        guidance_scale=4.0,
        prior_guidance_scale=4.0,
        seeds=(9863172,),
    )
    assert page.delivery() == Delivery("jpeg")
    assert page.sent_pictures() == {}


def test_the_example_in_the_documentation_is_the_page_s_own() -> None:
    assert Kandinsky22Page.example == EXAMPLE


def test_the_same_example_as_texts_of_a_form_is_the_same_request() -> None:
    form = {name: str(value) for name, value in EXAMPLE.items()}
    assert read(Kandinsky22Page, form) == read(Kandinsky22Page, EXAMPLE)


def test_a_prompt_alone_takes_every_documented_default() -> None:
    page = read(Kandinsky22Page, {"prompt": "a cat"})
    request = page.to_request(NO_MANIFEST, {})
    assert request == PriorTextToImage(
        pipeline="kandinsky-2-2",
        prompt="a cat",
        negative_prompt=None,
        width=768,
        height=768,
        num_inference_steps=20,
        prior_num_inference_steps=25,
        guidance_scale=4.0,
        prior_guidance_scale=4.0,
        seeds=request.seeds,
    )
    assert len(request.seeds) == 1
    assert page.delivery() == Delivery("jpeg")


def test_the_default_seed_is_random() -> None:
    page = read(Kandinsky22Page, {"prompt": "a cat"})
    assert len({page.to_request(NO_MANIFEST, {}).seeds for _ in range(10)}) == 10


@pytest.mark.parametrize("side", SIDES)
def test_every_size_is_drawn(side: int) -> None:
    request = read(
        Kandinsky22Page, {"prompt": "a cat", "img_width": side, "img_height": str(side)}
    ).to_request(NO_MANIFEST, {})
    assert (request.width, request.height) == (side, side)


@pytest.mark.parametrize("field", ["img_width", "img_height"])
@pytest.mark.parametrize("side", [511, 513, 1088, 0, -512])
def test_other_sizes_are_outside_the_enumeration(field: str, side: int) -> None:
    assert refusal(**{field: side}) == (406, f"{field}: must be one of {', '.join(map(str, SIDES))}")


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("samples", 1, 4),
        ("num_inference_steps", 20, 100),
        ("prior_steps", 1, 100),
        ("seed", -1, 2**64 - 1),
    ],
)
def test_limits_hold_on_both_sides(field: str, low: int, high: int) -> None:
    for inside in (low, high):
        assert getattr(read(Kandinsky22Page, {"prompt": "a cat", field: inside}), field) == inside
    for outside in (low - 1, high + 1):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")


@pytest.mark.parametrize(
    "field", ["samples", "num_inference_steps", "prior_steps", "seed", "img_width", "img_height"]
)
def test_fields_of_numbers_refuse_other_things(field: str) -> None:
    assert refusal(**{field: "many"}) == (400, f"{field}: must be a whole number")


def test_the_prompt_is_required() -> None:
    assert refusal(prompt=None) == (400, "prompt: field is required")


def test_the_first_wrong_field_of_the_page_is_named() -> None:
    assert refusal(prior_steps=0, samples=0) == (400, "samples: must be between 1 and 4")


def test_fields_that_the_page_does_not_know_are_ignored() -> None:
    assert read(Kandinsky22Page, {**EXAMPLE, "scheduler": "x", "guidance_scale": -1}) == read(
        Kandinsky22Page, EXAMPLE
    )


def test_several_samples_draw_successive_seeds() -> None:
    page = read(Kandinsky22Page, {"prompt": "a cat", "samples": "3", "seed": "1024"})
    assert page.to_request(NO_MANIFEST, {}).seeds == (1024, 1025, 1026)


@pytest.mark.parametrize("yes", [True, "true", "True", 1, "yes"])
def test_base64_answers_json_with_png(yes: object) -> None:
    assert read(Kandinsky22Page, {"prompt": "a cat", "base64": yes}).delivery() == Delivery(
        "png", as_json=True
    )


@pytest.mark.parametrize(
    ("samples", "steps", "price"), [(1, 20, 10), (1, 25, 13), (4, 100, 200), (3, 21, 32)]
)
def test_the_price_grows_with_samples_and_steps_and_is_rounded_up(
    samples: int, steps: int, price: int
) -> None:
    page = read(Kandinsky22Page, {"prompt": "a cat", "samples": samples, "num_inference_steps": steps})
    assert page.price(Kandinsky22Page.price_millicredits) == price
