"""The documented page sd3-med-pose: its example, defaults, limits and error texts."""

from __future__ import annotations

from functools import partial

import pytest

from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage, SchedulerChoice
from server.endpoints.fields import read
from server.endpoints.segmind.page import Delivery
from server.endpoints.segmind.sd3_med_pose import SD3MediumPose
from server.endpoints.segmind.sizes import size_of_a_megapixel
from tests.contract.segmind_refusal import NO_MANIFEST, refused
from tests.documented_bodies import SD3_MED_POSE as EXAMPLE

# fmt: off
SAMPLERS = [
    "euler", "euler_pp", "euler_ancestral", "euler_ancestral_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde",
    "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu",
    "ddpm", "lcm", "ipndm", "ipndm_v", "deis", "ddim", "uni_pc", "uni_pc_bh2",
]
# fmt: on
ALIASES = {"euler_cfg_pp": "euler_pp", "euler_ancestral_cfg_pp": "euler_ancestral_pp", "p_sampler": "ddpm"}
SCHEDULERS = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]

PORTRAIT = RGBImage(60, 90, bytes(60 * 90 * 3))


def page(**body: object) -> SD3MediumPose:
    return read(SD3MediumPose, {"prompt": "a cat", "image": "AAAA", **body})


refusal = partial(refused, SD3MediumPose, prompt="a cat", image="AAAA")


def test_the_documented_example_becomes_exactly_this_request() -> None:
    fields = read(SD3MediumPose, EXAMPLE)
    assert fields.sent_pictures() == {"image": EXAMPLE["image"]}
    assert fields.to_request(NO_MANIFEST, {"image": PORTRAIT}) == PoseToImage(
        pipeline="sd3-medium-pose",
        prompt=EXAMPLE["prompt"],
        negative_prompt="low quality,less details",
        image=PORTRAIT,
        controlnet_conditioning_scale=0.8,
        width=832,
        height=1280,
        num_inference_steps=20,
        guidance_scale=7.0,
        seeds=(698845,),
        scheduler=SchedulerChoice(name="dpmpp_2m", sigma_schedule="sgm_uniform"),
    )
    assert fields.delivery() == Delivery("jpeg")


def test_the_example_in_the_documentation_is_the_page_s_own() -> None:
    assert SD3MediumPose.example == EXAMPLE


def test_a_prompt_and_a_picture_take_every_documented_default() -> None:
    assert page().to_request(NO_MANIFEST, {"image": PORTRAIT}) == PoseToImage(
        pipeline="sd3-medium-pose",
        prompt="a cat",
        negative_prompt="low quality,less details",
        image=PORTRAIT,
        controlnet_conditioning_scale=0.8,
        width=832,
        height=1280,
        num_inference_steps=20,
        guidance_scale=7.0,
        seeds=(698845,),
        scheduler=SchedulerChoice(name="dpmpp_2m", sigma_schedule="sgm_uniform"),
    )
    assert page().delivery() == Delivery("jpeg")


def test_only_minus_one_makes_the_fixed_default_seed_random() -> None:
    assert page(seed=None).to_request(NO_MANIFEST, {"image": PORTRAIT}).seeds == (698845,)
    assert len({page(seed=-1).to_request(NO_MANIFEST, {"image": PORTRAIT}).seeds for _ in range(10)}) == 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_travels_by_its_name(sampler: str) -> None:
    assert page(sampler=sampler).to_request(NO_MANIFEST, {"image": PORTRAIT}).scheduler.name == sampler


@pytest.mark.parametrize(("alias", "sampler"), ALIASES.items())
def test_aliases_mean_the_sampler_that_they_stand_for(alias: str, sampler: str) -> None:
    assert page(sampler=alias).to_request(NO_MANIFEST, {"image": PORTRAIT}).scheduler.name == sampler


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_is_a_spacing_of_noise_levels(scheduler: str) -> None:
    assert (
        page(scheduler=scheduler).to_request(NO_MANIFEST, {"image": PORTRAIT}).scheduler.sigma_schedule
        == scheduler
    )


def test_other_names_are_outside_the_enumerations() -> None:
    assert refusal(sampler="plms") == (406, f"sampler: must be one of {', '.join([*SAMPLERS, *ALIASES])}")
    assert refusal(scheduler="DDIM") == (406, f"scheduler: must be one of {', '.join(SCHEDULERS)}")


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("num_inference_steps", 1, 100),
        ("samples", 1, 10),
        ("seed", -1, 2**64 - 1),
    ],
)
def test_limits_of_whole_numbers_hold_on_both_sides(field: str, low: int, high: int) -> None:
    for inside in (low, high):
        assert getattr(page(**{field: inside}), field) == inside
    for outside in (low - 1, high + 1):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")
    assert refusal(**{field: 1.5}) == (400, f"{field}: must be a whole number")


@pytest.mark.parametrize(("field", "low", "high"), [("guidance_scale", 1, 20), ("strength", 0, 1)])
def test_limits_of_decimal_numbers_hold_on_both_sides(field: str, low: float, high: float) -> None:
    for inside in (low, high, str(high)):
        assert getattr(page(**{field: inside}), field) == float(inside)
    for outside in (low - 0.01, high + 0.01):
        assert refusal(**{field: outside}) == (400, f"{field}: must be between {low} and {high}")
    assert refusal(**{field: "much"}) == (400, f"{field}: must be a number")


@pytest.mark.parametrize("field", ["prompt", "image"])
def test_prompt_and_picture_are_required(field: str) -> None:
    assert refusal(**{field: None}) == (400, f"{field}: field is required")


def test_the_strength_is_how_closely_the_pose_is_kept() -> None:
    assert page(strength=0).to_request(NO_MANIFEST, {"image": PORTRAIT}).controlnet_conditioning_scale == 0.0


@pytest.mark.parametrize("name", ["image", "file", "imageUrl", "init_image"])
def test_the_picture_is_found_under_each_of_its_names(name: str) -> None:
    assert read(SD3MediumPose, {"prompt": "a cat", name: b"\xff\xd8"}).sent_pictures() == {
        "image": b"\xff\xd8"
    }


def test_base64_answers_json_with_png() -> None:
    assert page(base64="true").delivery() == Delivery("png", as_json=True)


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ((1024, 1024), (1024, 1024)),
        ((10, 10), (1024, 1024)),
        ((6000, 4000), (1280, 832)),
        ((4000, 6000), (832, 1280)),
        ((1920, 1080), (1344, 768)),
        ((10_000, 1), (2048, 512)),
        ((1, 10_000), (512, 2048)),
    ],
)
def test_the_result_is_about_a_megapixel_in_the_aspect_ratio_of_the_picture(
    given: tuple[int, int], drawn: tuple[int, int]
) -> None:
    assert size_of_a_megapixel(*given) == drawn


@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.5, 0.66, 0.75, 1, 1.33, 1.78, 2.39, 4])
def test_sides_are_multiples_of_64_near_the_ratio(ratio: float) -> None:
    width, height = size_of_a_megapixel(round(3000 * ratio), 3000)
    assert (width % 64, height % 64) == (0, 0)
    assert 0.9 * 2**20 <= width * height <= 1.1 * 2**20
    assert width / height == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize(
    ("samples", "steps", "price"), [(1, 20, 25), (1, 1, 2), (4, 100, 500), (10, 20, 250)]
)
def test_the_price_grows_with_samples_and_steps_and_is_rounded_up(
    samples: int, steps: int, price: int
) -> None:
    fields = page(samples=samples, num_inference_steps=steps)
    assert fields.price(SD3MediumPose.price_millicredits) == price
