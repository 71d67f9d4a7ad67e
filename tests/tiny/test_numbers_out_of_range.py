"""Networks whose numbers are none draw no black pictures: whoever asked is told, and of what is to blame."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipelines.denoising.blame import in_callers_words
from pipelines.errors import InvalidInput, NumbersOutOfRange
from pipelines.image_io import RGBImage
from pipelines.images.codec import rounded
from pipelines.request import Lora, Upscaling
from pipelines.weights.manifest import Manifest
from tests.drawing import draw, open_family, small_request

ASKED = small_request(num_inference_steps=2)


@pytest.fixture
def family(manifest: Manifest) -> Any:
    return open_family(manifest, "stable-diffusion-v1-5")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_pixel_that_is_no_number_is_enough(value: float) -> None:
    pixels = torch.zeros(3, 4, 4)
    assert rounded(pixels).pixels == bytes(48)
    pixels[1, 2, 3] = value
    with pytest.raises(NumbersOutOfRange):
        rounded(pixels)


def test_a_lora_that_is_much_too_strong_is_refused_by_name(family: Any) -> None:
    asked = replace(ASKED, loras=(Lora(name="animie", scale=1e38),))
    with pytest.raises(NumbersOutOfRange) as error:
        draw(family, asked)
    told = in_callers_words(error.value, asked)
    assert isinstance(told, InvalidInput)
    assert (told.field, told.problem.partition(":")[0]) == ("loras", "animie")
    assert draw(family, ASKED)


def test_a_checkpoint_of_no_numbers_is_not_its_callers_fault(family: Any) -> None:
    parameter = next(family.modules["unet"].parameters())
    with torch.no_grad():
        parameter.fill_(torch.nan)
    with pytest.raises(NumbersOutOfRange) as error:
        draw(family, ASKED)
    assert in_callers_words(error.value, ASKED) is error.value


def test_several_adapters_are_all_named(family: Any) -> None:
    asked = replace(ASKED, loras=(Lora(name="animie"),), embeddings=("night_scene",), vae="sd-vae-ft-mse")
    told = in_callers_words(NumbersOutOfRange(), asked)
    assert isinstance(told, InvalidInput)
    assert "animie, night_scene, sd-vae-ft-mse" in told.problem
    assert str(copy.copy(told)) == str(told)


def test_what_a_library_raises_for_an_adapter_names_the_adapter(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("somewhere deep in a library")

    monkeypatch.setattr(family._vaes, "get", fail)
    with pytest.raises(InvalidInput, match="vae: sd-vae-ft-mse cannot be used with this checkpoint"):
        draw(family, replace(ASKED, vae="sd-vae-ft-mse"))


def test_an_upscaler_of_no_numbers_makes_no_black_picture(manifest: Manifest) -> None:
    picture = RGBImage(16, 16, bytes(768))
    upscaler = open_family(manifest, "small-x2")
    with torch.no_grad():
        next(upscaler.modules["upscaler"].parameters()).fill_(torch.nan)
    with pytest.raises(NumbersOutOfRange):
        draw(upscaler, Upscaling(pipeline="small-x2", image=picture, width=32, height=32))
