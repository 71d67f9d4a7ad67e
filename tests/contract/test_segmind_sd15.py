"""The documented page sd1.5-img2img: its example, defaults, limits and error texts."""

from __future__ import annotations

from functools import partial

import pytest

from pipelines.image_io import RGBImage, cover
from pipelines.request import ImageToImage, SchedulerChoice
from server.endpoints.fields import read
from server.endpoints.segmind.page import Delivery
from server.endpoints.segmind.sd15_img2img import SD15ImageToImage
from tests.contract.segmind_refusal import NO_MANIFEST, refused
from tests.documented_bodies import SD15_IMG2IMG as EXAMPLE

SIDES = [512, 576, 640, 704, 768, 832, 896, 960, 1024]


SCHEDULERS = {
    "DDIM": SchedulerChoice(name="DDIMScheduler"),
    "DPM Multi": SchedulerChoice(name="DPMSolverMultistepScheduler"),
    "DPM Single": SchedulerChoice(name="DPMSolverSinglestepScheduler"),
    "Euler a": SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    "Euler": SchedulerChoice(name="EulerDiscreteScheduler"),
    "Heun": SchedulerChoice(name="HeunDiscreteScheduler"),
    "DPM2 a Karras": SchedulerChoice(name="KDPM2AncestralDiscreteScheduler", use_karras_sigmas=True),
    "DPM2 Karras": SchedulerChoice(name="KDPM2DiscreteScheduler", use_karras_sigmas=True),
    "LMS": SchedulerChoice(name="LMSDiscreteScheduler"),
    "PNDM": SchedulerChoice(name="PNDMScheduler"),
    "DDPM": SchedulerChoice(name="DDPMScheduler"),
    "UniPC": SchedulerChoice(name="UniPCMultistepScheduler"),
}

STRIPES = RGBImage(90, 60, bytes(range(90)) * 60 * 3)


def page(**body: object) -> SD15ImageToImage:
    return read(SD15ImageToImage, {"prompt": "a cat", "image": "AAAA", **body})


refusal = partial(refused, SD15ImageToImage, prompt="a cat", image="AAAA")


def test_the_documented_example_becomes_exactly_this_request() -> None:
    fields = read(SD15ImageToImage, EXAMPLE)
    assert fields.sent_pictures() == {"image": EXAMPLE["image"]}
    assert fields.to_request(NO_MANIFEST, {"image": STRIPES}) == ImageToImage(
        pipeline="stable-diffusion-v1-5",
        prompt="A fantasy landscape, trending on artstation, mystical sky",
        negative_prompt="nude, disfigured, blurry",
        image=cover(STRIPES, 512, 512),
        strength=0.75,
        width=512,
        height=512,
        num_inference_steps=25,
        guidance_scale=10.5,
        seeds=(98877465625,),
        scheduler=SchedulerChoice(name="DDIMScheduler"),
    )
    assert fields.delivery() == Delivery("jpeg")


def test_the_example_in_the_documentation_is_the_page_s_own() -> None:
    assert SD15ImageToImage.example == EXAMPLE


def test_a_prompt_and_a_picture_take_every_documented_default() -> None:
    request = page().to_request(NO_MANIFEST, {"image": STRIPES})
    assert request == ImageToImage(
        pipeline="stable-diffusion-v1-5",
        prompt="a cat",
        negative_prompt=None,
        image=cover(STRIPES, 512, 512),
        strength=0.75,
        width=512,
        height=512,
        num_inference_steps=20,
        guidance_scale=7.5,
        seeds=request.seeds,
        scheduler=SchedulerChoice(name="DDIMScheduler"),
    )
    assert len(request.seeds) == 1
    assert page().delivery() == Delivery("jpeg")


def test_the_default_seed_is_random() -> None:
    assert len({page().to_request(NO_MANIFEST, {"image": STRIPES}).seeds for _ in range(10)}) == 10


def test_the_picture_is_cut_to_the_asked_size() -> None:
    request = page(img_width="768", img_height=1024).to_request(NO_MANIFEST, {"image": STRIPES})
    assert (request.image.width, request.image.height) == (request.width, request.height) == (768, 1024)


@pytest.mark.parametrize(("name", "choice"), SCHEDULERS.items())
def test_every_scheduler_is_translated(name: str, choice: SchedulerChoice) -> None:
    assert page(scheduler=name).to_request(NO_MANIFEST, {"image": STRIPES}).scheduler == choice


def test_other_schedulers_are_outside_the_enumeration() -> None:
    assert refusal(scheduler="ddim") == (406, f"scheduler: must be one of {', '.join(SCHEDULERS)}")


@pytest.mark.parametrize("side", SIDES)
def test_every_size_is_drawn(side: int) -> None:
    fields = page(img_width=side, img_height=str(side))
    assert (fields.img_width, fields.img_height) == (side, side)


@pytest.mark.parametrize("field", ["img_width", "img_height"])
@pytest.mark.parametrize("side", [511, 600, 1025])
def test_other_sizes_are_outside_the_enumeration(field: str, side: int) -> None:
    assert refusal(**{field: side}) == (406, f"{field}: must be one of {', '.join(map(str, SIDES))}")


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("samples", 1, 4),
        ("num_inference_steps", 20, 100),
        ("seed", -1, 2**64 - 1),
    ],
)
def test_limits_of_whole_numbers_hold_on_both_sides(field: str, low: int, high: int) -> None:
    for inside in (low, high):
        assert getattr(page(**{field: inside}), field) == inside
    for outside in (low - 1, high + 1):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")
    assert refusal(**{field: "x"}) == (400, f"{field}: must be a whole number")


@pytest.mark.parametrize(("field", "low", "high"), [("guidance_scale", 0.1, 25), ("strength", 0.1, 1)])
def test_limits_of_decimal_numbers_hold_on_both_sides(field: str, low: float, high: float) -> None:
    for inside in (low, high, str(low)):
        assert getattr(page(**{field: inside}), field) == float(inside)
    for outside in (0.09, high + 0.01):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")
    assert refusal(**{field: "x"}) == (400, f"{field}: must be a number")


@pytest.mark.parametrize("field", ["prompt", "image"])
def test_prompt_and_picture_are_required(field: str) -> None:
    assert refusal(**{field: ""}) == (400, f"{field}: field is required")


@pytest.mark.parametrize("name", ["image", "file", "imageUrl", "init_image"])
def test_the_picture_is_found_under_each_of_its_names(name: str) -> None:
    assert read(SD15ImageToImage, {"prompt": "a cat", name: "AAAA"}).sent_pictures() == {"image": "AAAA"}


def test_base64_answers_json_with_png() -> None:
    assert page(base64=1).delivery() == Delivery("png", as_json=True)


@pytest.mark.parametrize(("samples", "steps", "price"), [(1, 20, 5), (1, 21, 6), (4, 100, 100)])
def test_the_price_grows_with_samples_and_steps_and_is_rounded_up(
    samples: int, steps: int, price: int
) -> None:
    fields = page(samples=samples, num_inference_steps=steps)
    assert fields.price(SD15ImageToImage.price_millicredits) == price
