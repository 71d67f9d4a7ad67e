"""Segmind's further pages of Stable Diffusion 1.5 and XL: samples, defaults, limits, sizes, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipelines.image_io import cover
from pipelines.request import Control, ImageToImage, Inpainting, SchedulerChoice, TextToImage
from server.endpoints.fields import read
from server.endpoints.segmind.page import Delivery, Page
from server.endpoints.segmind.sd15_controlnets import (
    SD15Canny,
    SD15Depth,
    SD15OpenPose,
    SD15Scribble,
    SD15SoftEdge,
)
from server.endpoints.segmind.sd15_img2img import SD15ImageToImage
from server.endpoints.segmind.sd15_inpainting import SD15Inpainting
from server.endpoints.segmind.sd15_txt2img import SD15TextToImage
from server.endpoints.segmind.sdxl_img2img import SDXL10ImageToImage, SDXLImageToImage
from server.endpoints.segmind.sdxl_inpaint import SDXLInpaint
from server.endpoints.segmind.sdxl_txt2img import SDXLTextToImage
from server.endpoints.segmind.stable_diffusion import SDXLPage
from server.errors import NotFound
from tests import documented_bodies as documented
from tests.contract.segmind_drawing import ALL, DDIM, MASK, PICTURE, SENT, UNIPC, drawn
from tests.contract.segmind_refusal import NO_MANIFEST, refused

SAMPLES: Mapping[type[Page], Mapping[str, Any]] = {
    SD15TextToImage: documented.SD15_TXT2IMG,
    SD15Inpainting: documented.SD15_INPAINTING,
    SD15Canny: documented.SD15_CONTROLNET_CANNY,
    SD15Depth: documented.SD15_CONTROLNET_DEPTH,
    SD15Scribble: documented.SD15_CONTROLNET_SCRIBBLE,
    SD15SoftEdge: documented.SD15_CONTROLNET_SOFTEDGE,
    SDXLTextToImage: documented.SDXL10_TXT2IMG,
    SDXLImageToImage: documented.SDXL_IMG2IMG,
    SDXLInpaint: documented.SDXL_INPAINT,
}

every_page = pytest.mark.parametrize("page", [*SAMPLES, SD15OpenPose, SDXL10ImageToImage], ids=str)


@pytest.mark.parametrize(("page", "sample"), SAMPLES.items(), ids=str)
def test_the_example_in_the_documentation_is_the_vendor_s_sample(
    page: type[Page], sample: Mapping[str, Any]
) -> None:
    assert page.example == sample
    as_text = {name: str(value) for name, value in sample.items()}
    assert drawn(page, as_text) == drawn(page, sample)


def test_the_samples_become_exactly_these_requests() -> None:
    assert drawn(SD15TextToImage, documented.SD15_TXT2IMG) == TextToImage(
        pipeline="stable-diffusion-v1-5",
        prompt=documented.SD15_TXT2IMG["prompt"],
        negative_prompt="nude, disfigured, blurry",
        width=512,
        height=512,
        num_inference_steps=25,
        guidance_scale=7.5,
        seeds=(17123564234,),
        scheduler=DDIM,
    )
    assert drawn(SD15Inpainting, documented.SD15_INPAINTING) == Inpainting(
        pipeline="stable-diffusion-v1-5",
        prompt="mecha robot sitting on a bench",
        negative_prompt="Disfigured, cartoon, blurry, nude",
        image=cover(PICTURE, 512, 512),
        mask=cover(MASK, 512, 512),
        strength=1.0,
        width=512,
        height=512,
        num_inference_steps=25,
        guidance_scale=7.5,
        seeds=(17123564234,),
        scheduler=DDIM,
    )
    assert drawn(SD15SoftEdge, documented.SD15_CONTROLNET_SOFTEDGE) == TextToImage(
        pipeline="stable-diffusion-v1-5",
        prompt="royal chamber with fancy bed",
        negative_prompt="Disfigured, cartoon, blurry, nude",
        controls=(Control(name="softedge", image=cover(PICTURE, 768, 512), preprocessor="hed"),),
        width=768,
        height=512,
        num_inference_steps=25,
        guidance_scale=7.5,
        seeds=(131487365682,),
        scheduler=UNIPC,
    )
    assert drawn(SDXLTextToImage, documented.SDXL10_TXT2IMG) == TextToImage(
        pipeline="sdxl",
        prompt=documented.SDXL10_TXT2IMG["prompt"],
        negative_prompt=documented.SDXL10_TXT2IMG["negative_prompt"],
        width=896,
        height=1152,
        num_inference_steps=25,
        guidance_scale=8.0,
        seeds=(468685,),
        scheduler=UNIPC,
    )
    assert drawn(SDXLImageToImage, documented.SDXL_IMG2IMG) == ImageToImage(
        pipeline="sdxl",
        prompt=documented.SDXL_IMG2IMG["prompt"],
        negative_prompt="nude, disfigured, blurry",
        image=cover(PICTURE, 1280, 832),
        strength=0.65,
        width=1280,
        height=832,
        num_inference_steps=30,
        guidance_scale=6.5,
        seeds=(98877465625,),
        scheduler=UNIPC,
    )
    assert drawn(SDXLInpaint, documented.SDXL_INPAINT) == Inpainting(
        pipeline="sdxl",
        prompt="A man with black sun glasses",
        negative_prompt="bad quality, painting, blur",
        image=cover(PICTURE, 1280, 832),
        mask=cover(MASK, 1280, 832),
        strength=0.9,
        width=1280,
        height=832,
        num_inference_steps=25,
        guidance_scale=7.5,
        seeds=(12467,),
        scheduler=DDIM,
    )


@pytest.mark.parametrize(
    ("page", "scheduler", "strength"),
    [
        (SD15TextToImage, DDIM, None),
        (SD15Inpainting, DDIM, 1.0),
        (SD15ImageToImage, DDIM, 0.75),
        (SDXLTextToImage, UNIPC, None),
        (SDXLImageToImage, UNIPC, 0.75),
        (SDXL10ImageToImage, UNIPC, 0.75),
        (SDXLInpaint, DDIM, 0.9),
    ],
)
def test_what_is_not_sent_takes_the_default(
    page: type[Page], scheduler: SchedulerChoice, strength: float | None
) -> None:
    for nothing in ({}, dict.fromkeys(page.model_fields)):
        request = drawn(page, nothing | SENT)
        assert (request.num_inference_steps, request.guidance_scale) == (20, 7.5)
        assert (request.scheduler, getattr(request, "strength", None)) == (scheduler, strength)
        assert (request.negative_prompt, len(request.seeds)) == (None, 1)
        assert (request.controls, request.prompt_weighting) == ((), False)
        assert read(page, nothing | SENT).delivery() == Delivery("jpeg")
        assert read(page, nothing | SENT).warnings(ALL) == []
    assert len({drawn(page, SENT).seeds for _ in range(10)}) == 10


@every_page
def test_limits_of_whole_numbers_hold_on_both_sides(page: type[Page]) -> None:
    steps = 10 if issubclass(page, SDXLPage) else 20
    limits = {"samples": (1, 4), "num_inference_steps": (steps, 100), "seed": (-1, 2**64 - 1)}
    for field, (low, high) in limits.items():
        for inside in (low, high, str(high)):
            assert getattr(read(page, {**SENT, field: inside}), field) == int(inside)
        for outside in (low - 1, high + 1):
            refusal = refused(page, **SENT, **{field: outside})
            assert refusal == (400, f"{field}: must be between {low} and {high}")
        assert refused(page, **SENT, **{field: "x"}) == (400, f"{field}: must be a whole number")


@every_page
def test_limits_of_decimal_numbers_hold_on_both_sides(page: type[Page]) -> None:
    lowest = 1 if page.price_millicredits == 10 else 0.1
    limits = {"guidance_scale": (lowest, 25)}
    if "strength" in page.model_fields and page is not SDXLTextToImage:
        limits["strength"] = (0.1, 1)
    for field, (low, high) in limits.items():
        for inside in (low, high):
            assert getattr(read(page, {**SENT, field: inside}), field) == inside
        for outside in (low - 0.05, high + 0.05):
            assert refused(page, **SENT, **{field: outside}) == (
                400,
                f"{field}: must be between {low} and {high}",
            )


@every_page
def test_everything_that_is_required_is_named(page: type[Page]) -> None:
    required = [name for name, field in page.model_fields.items() if field.is_required()]
    assert "prompt" in required
    for name in required:
        without = {key: value for key, value in SENT.items() if key != name}
        assert refused(page, **without) == (400, f"{name}: field is required")


@pytest.mark.parametrize("name", ["mask", "maskUrl", "mask_image"])
@pytest.mark.parametrize("page", [SD15Inpainting, SDXLInpaint])
def test_a_mask_is_found_under_each_of_its_names(page: type[Page], name: str) -> None:
    fields = read(page, {"prompt": "a cat", "imageUrl": "AAAA", name: b"\xff\xd8"})
    assert fields.sent_pictures() == {"image": "AAAA", "mask": b"\xff\xd8"}


@every_page
@pytest.mark.parametrize(
    "name", ["dpmpp_2m", "dmpp_2m", "dpmpp_sde_ancestral", "dpmmp_sde_ancestral", "DPM Multi"]
)
def test_the_names_that_the_vendor_s_own_sdks_send_are_noise_schedulers(page: type[Page], name: str) -> None:
    expected = SchedulerChoice(name="DPMSolverMultistepScheduler")
    assert drawn(page, {**SENT, "scheduler": name}).scheduler == expected


@every_page
@pytest.mark.parametrize("name", ["ddim", "Euler A", "dpmpp_3m", 5, ["DDIM"]])
def test_other_schedulers_are_outside_the_enumeration(page: type[Page], name: object) -> None:
    status, text = refused(page, **SENT, scheduler=name)
    assert (status, text.partition(", ")[0]) == (406, "scheduler: must be one of DDIM")


@pytest.mark.parametrize("side", [512, 520, 576, 1080, 1152, 1920, 2048])
@pytest.mark.parametrize("page", [SDXLTextToImage, SDXL10ImageToImage])
def test_sides_of_sdxl_are_multiples_of_8(page: type[Page], side: int) -> None:
    request = drawn(page, {**SENT, "img_width": side, "img_height": str(side)})
    assert (request.width, request.height) == (side, side)


@pytest.mark.parametrize(
    ("side", "problem"),
    [
        (504, "must be between 512 and 2048"),
        (2056, "must be between 512 and 2048"),
        (1023, "must be divisible by 8"),
        ("wide", "must be a whole number"),
    ],
)
@pytest.mark.parametrize("field", ["img_width", "img_height"])
@pytest.mark.parametrize("page", [SDXLTextToImage, SDXLImageToImage])
def test_other_sides_of_sdxl_are_refused(page: type[Page], field: str, side: object, problem: str) -> None:
    assert refused(page, **SENT, **{field: side}) == (400, f"{field}: {problem}")


def test_one_side_alone_makes_the_other_the_default() -> None:
    request = drawn(SDXL10ImageToImage, {**SENT, "img_height": 768})
    assert (request.width, request.height) == (1024, 768)
    assert (request.image.width, request.image.height) == (1024, 768)


@every_page
def test_a_checkpoint_that_is_not_here_is_named_before_anything_is_fetched(page: type[Page]) -> None:
    name = "sdxl" if page.slug.startswith("sdxl") else "stable-diffusion-v1-5"
    with pytest.raises(NotFound, match=f"^{name} is not a pipeline of this server$"):
        read(page, SENT).validate_names(NO_MANIFEST)
    read(page, SENT).validate_names(ALL)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({}, []),
        ({"style": "base"}, []),
        ({"refiner": False, "strength": 0.2, "high_noise_fraction": 0.8}, []),
        ({"refiner": True}, ["refiner"]),
        ({"strength": 1}, ["strength"]),
        ({"refiner": "true", "strength": 0.2, "high_noise_fraction": 0.8, "style": "anime"},
         ["style", "refiner", "strength", "high_noise_fraction"]),
        ({"negative_prompt": "rain", "guidance_scale": 1}, ["negative_prompt"]),
    ],
)  # fmt: skip
def test_options_of_sdxl_without_effect_are_warned_of(sent: dict[str, object], fields: list[str]) -> None:
    warnings = read(SDXLTextToImage, SENT | sent).warnings(NO_MANIFEST)
    assert [text.partition(": ")[0] for text in warnings] == fields
    assert all("has no effect" in text for text in warnings)


def test_what_a_gateway_sends_is_drawn() -> None:
    """Its provider adds the defaults of all of the vendor's pages to each of them."""
    sent = {
        "model": "sdxl1.0-txt2img",
        "prompt": "a cat",
        "samples": 1,
        "img_width": 1024,
        "img_height": 1024,
        "style": "base",
        "num_inference_steps": 20,
        "negative_prompt": "out of frame",
        "scheduler": "UniPC",
        "guidance_scale": 7.5,
        "seed": 123456789,
        "strength": 0.75,
        "refiner": True,
        "high_noise_fraction": 0.8,
        "base64": True,
        "control_scale": 1.8,
        "qr_text": "https://example.com",
        "invert": False,
        "size": 768,
    }
    assert drawn(SDXLTextToImage, sent).seeds == (123456789,)
    assert read(SDXLTextToImage, sent).delivery() == Delivery("png", as_json=True)


def test_another_base_model_is_warned_of() -> None:
    (warning,) = read(SDXLImageToImage, {**SENT, "base_model": "juggernaut"}).warnings(NO_MANIFEST)
    assert warning.startswith("base_model: has no effect")
    assert read(SDXLImageToImage, {**SENT, "base_model": "sdxl"}).warnings(NO_MANIFEST) == []


@every_page
@pytest.mark.parametrize(("samples", "steps"), [(1, 20), (1, 21), (4, 100)])
def test_the_price_grows_with_samples_and_steps_and_is_rounded_up(
    page: type[Page], samples: int, steps: int
) -> None:
    fields = read(page, {**SENT, "samples": samples, "num_inference_steps": steps})
    base = page.price_millicredits
    assert fields.price(base) == -(-base * samples * steps // 20)
