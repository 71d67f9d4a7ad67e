"""The documented page kolors: its example, defaults, limits and error texts."""

from __future__ import annotations

from functools import partial

import pytest

from pipelines.request import SchedulerChoice, TextToImage
from server.endpoints.fields import read
from server.endpoints.segmind.kolors import KolorsPage
from server.endpoints.segmind.page import Delivery
from tests.contract.segmind_refusal import NO_MANIFEST, refused
from tests.documented_bodies import KOLORS as EXAMPLE

SCHEDULERS = {
    "EulerDiscreteScheduler": SchedulerChoice(name="EulerDiscreteScheduler"),
    "EulerAncestralDiscreteScheduler": SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    "DPMSolverMultistepScheduler": SchedulerChoice(name="DPMSolverMultistepScheduler"),
    "DPMSolverMultistepScheduler_SDE_karras": SchedulerChoice(
        name="DPMSolverMultistepScheduler", use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"
    ),
    "UniPCMultistepScheduler": SchedulerChoice(name="UniPCMultistepScheduler"),
    "DEISMultistepScheduler": SchedulerChoice(name="DEISMultistepScheduler"),
}


refusal = partial(refused, KolorsPage, prompt="a cat")


def test_the_documented_example_becomes_exactly_this_request() -> None:
    page = read(KolorsPage, {name: str(value) for name, value in EXAMPLE.items()})
    assert page.to_request(NO_MANIFEST, {}) == TextToImage(
        pipeline="kolors",
        prompt=EXAMPLE["prompt"],
        negative_prompt="",
        width=1024,
        height=1024,
        num_inference_steps=25,
        guidance_scale=6.0,
        seeds=(441234134,),
        scheduler=SchedulerChoice(name="EulerDiscreteScheduler"),
    )
    assert page.delivery() == Delivery("webp", 80)
    assert page.sent_pictures() == {}


def test_the_example_in_the_documentation_is_the_page_s_own() -> None:
    assert KolorsPage.example == EXAMPLE


def test_a_prompt_alone_takes_every_documented_default() -> None:
    page = read(KolorsPage, {"prompt": "一只猫"})
    request = page.to_request(NO_MANIFEST, {})
    assert request == TextToImage(
        pipeline="kolors",
        prompt="一只猫",
        negative_prompt="",
        width=1024,
        height=1024,
        num_inference_steps=25,
        guidance_scale=6.0,
        seeds=request.seeds,
        scheduler=SchedulerChoice(name="EulerDiscreteScheduler"),
    )
    assert len(request.seeds) == 1
    assert page.delivery() == Delivery("webp", 80)


def test_the_default_seed_is_random() -> None:
    page = read(KolorsPage, {"prompt": "a cat"})
    assert len({page.to_request(NO_MANIFEST, {}).seeds for _ in range(10)}) == 10


@pytest.mark.parametrize(("name", "choice"), SCHEDULERS.items())
def test_every_scheduler_is_translated(name: str, choice: SchedulerChoice) -> None:
    assert (
        read(KolorsPage, {"prompt": "a cat", "scheduler": name}).to_request(NO_MANIFEST, {}).scheduler
        == choice
    )


def test_other_schedulers_are_outside_the_enumeration() -> None:
    assert refusal(scheduler="DDIM") == (406, f"scheduler: must be one of {', '.join(SCHEDULERS)}")


@pytest.mark.parametrize(
    ("output_format", "drawn"),
    [
        ("webp", "webp"),
        ("jpg", "jpeg"),
        ("jpeg", "jpeg"),
        ("png", "png"),
    ],
)
def test_every_format_is_delivered_in_the_asked_quality(output_format: str, drawn: str) -> None:
    page = read(KolorsPage, {"prompt": "a cat", "output_format": output_format, "output_quality": "31"})
    assert page.delivery() == Delivery(drawn, 31)


def test_other_formats_are_outside_the_enumeration() -> None:
    assert refusal(output_format="gif") == (406, "output_format: must be one of webp, jpg, jpeg, png")


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("steps", 1, 50),
        ("width", 512, 2048),
        ("height", 512, 2048),
        ("output_quality", 0, 100),
        ("number_of_images", 1, 10),
        ("seed", -1, 2**64 - 1),
    ],
)
def test_limits_hold_on_both_sides(field: str, low: int, high: int) -> None:
    for inside in (low, high):
        assert getattr(read(KolorsPage, {"prompt": "a cat", field: inside}), field) == inside
    for outside in (low - 1, high + 1):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")
    assert refusal(**{field: "many"}) == (400, f"{field}: must be a whole number")


def test_the_guidance_scale_is_between_0_and_20() -> None:
    assert [
        read(KolorsPage, {"prompt": "a cat", "cfg": cfg}).to_request(NO_MANIFEST, {}).guidance_scale
        for cfg in (0, "20", 6.5)
    ] == [
        0.0,
        20.0,
        6.5,
    ]
    for outside in (-0.1, 20.1):
        assert refusal(cfg=outside) == (400, "cfg: must be between 0 and 20")
    assert refusal(cfg="much") == (400, "cfg: must be a number")


def test_any_size_between_the_limits_is_kept_exactly() -> None:
    request = read(KolorsPage, {"prompt": "a cat", "width": 1000, "height": "701"}).to_request(
        NO_MANIFEST, {}
    )
    assert (request.width, request.height) == (1000, 701)


def test_the_prompt_is_required() -> None:
    assert refusal(prompt="") == (400, "prompt: field is required")


def test_several_images_draw_successive_seeds() -> None:
    page = read(KolorsPage, {"prompt": "a cat", "number_of_images": 3, "seed": 2**64 - 1})
    assert page.to_request(NO_MANIFEST, {}).seeds == (2**64 - 1, 0, 1)


@pytest.mark.parametrize("output_format", ["webp", "jpg", "jpeg", "png"])
@pytest.mark.parametrize("said", [True, "true", "True", 1, "1", "yes"])
def test_base64_answers_json_with_png_whatever_the_format_is(said: object, output_format: str) -> None:
    body = {"prompt": "a cat", "base64": said, "output_format": output_format, "output_quality": 3}
    assert read(KolorsPage, body).delivery() == Delivery("png", as_json=True)


@pytest.mark.parametrize("said", [False, "false", 0, "no", None, ""])
def test_without_base64_the_picture_comes_as_bytes(said: object) -> None:
    assert read(KolorsPage, {"prompt": "a cat", "base64": said}).delivery() == Delivery("webp", 80)


def test_base64_is_a_flag() -> None:
    assert refusal(base64="maybe") == (400, "base64: must be true or false")


@pytest.mark.parametrize(("images", "steps", "price"), [(1, 25, 20), (1, 1, 1), (10, 50, 400), (3, 26, 63)])
def test_the_price_grows_with_images_and_steps_and_is_rounded_up(images: int, steps: int, price: int) -> None:
    page = read(KolorsPage, {"prompt": "a cat", "number_of_images": images, "steps": steps})
    assert page.price(KolorsPage.price_millicredits) == price
