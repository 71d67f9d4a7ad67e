"""A published Python client of Segmind, unchanged, against a running server.

`tests/integration/test_segmind.py` has the vendor's present SDK, whose host is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.running_server import RunningServer

Published = Callable[[str], Path]

STEPS = {"num_inference_steps": 20}


@pytest.fixture(scope="module")
def photograph(server: RunningServer) -> str:
    """URL of a picture on this machine."""
    fields = {"width": 256, "height": 256, "num_inference_steps": 2, "safety_checker": "no"}
    drawn = server.answer("text2img", model_id="stable-diffusion-v1-5", prompt="a cat", **fields)
    return drawn["output"][0]


@pytest.mark.slow
@pytest.mark.client("segmindapi", "Python", happy="kandinsky2.2-txt2img")
def test_the_older_sdk_draws(server: RunningServer, published: Published):
    published("segmindapi")
    import segmindapi

    picture = segmindapi.Kadinsky(server.key).generate("a cat")
    assert (picture.format, picture.size) == ("JPEG", (512, 512))


@pytest.mark.slow
@pytest.mark.client("segmindapi", "Python", happy="sd1.5-img2img, sd1.5-inpainting")
@pytest.mark.parametrize("masked", [False, True])
def test_the_older_sdk_draws_from_a_picture(
    server: RunningServer, published: Published, photograph: str, masked: bool
):
    published("segmindapi")
    import segmindapi

    mask = {"maskUrl": photograph} if masked else {}
    picture = segmindapi.SD1_5(server.key).generate("a cat", photograph, **mask, **STEPS)
    assert_drawn(picture)


@pytest.mark.slow
@pytest.mark.client("segmindapi", "Python", happy="sd1.5-controlnet-canny")
def test_the_older_sdk_draws_with_a_controlnet(server: RunningServer, published: Published, photograph: str):
    """The other four are called alike; the small checkpoints have no ControlNet for them."""
    published("segmindapi")
    import segmindapi

    assert_drawn(segmindapi.ControlNet(server.key).generate("a cat", photograph, "Canny", **STEPS))


@pytest.mark.slow
@pytest.mark.client("segmindapi", "Python", happy="sdxl1.0-txt2img")
def test_the_older_sdk_draws_with_sdxl(server: RunningServer, published: Published):
    """Its default scheduler is a name that no documentation has."""
    published("segmindapi")
    import segmindapi

    assert_drawn(segmindapi.SDXL(server.key).generate("a cat", **STEPS))


@pytest.mark.slow
@pytest.mark.client("segmindapi", "Python", happy="esrgan")
def test_the_older_sdk_enlarges(server: RunningServer, published: Published, photograph: str):
    published("segmindapi")
    import segmindapi

    assert segmindapi.ESRGAN(server.key).generate(photograph, scale=2).size == (512, 512)


@pytest.mark.client("segmindapi", "Python", error="bad key, wrong value, unknown model, no credits")
def test_the_older_sdk_says_the_status_of_what_is_wrong(server: RunningServer, published: Published):
    published("segmindapi")
    import segmindapi

    def refusal(model: str, key: str, **options: Any) -> str:
        with pytest.raises(Exception, match=r"^Error: ") as refused:
            getattr(segmindapi, model)(key).generate("a cat", **options)
        return str(refused.value)

    assert refusal("Kadinsky", "wrong") == "Error: 401"
    assert refusal("Kadinsky", server.key, img_width=500) == "Error: 406"
    assert refusal("Paragon", server.key) == "Error: 404"
    assert refusal("Kadinsky", server.account("poor of segmindapi", 0)) == "Error: 406"


def assert_drawn(picture: Image.Image) -> None:
    assert picture.format == "JPEG"
    assert any(low != high for low, high in picture.convert("RGB").getextrema())
