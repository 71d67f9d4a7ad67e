"""img2img, inpaint and controlnet of the enterprise dialect over real HTTP: every form of picture, errors."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.running_server import HTTP, RunningServer

SMALL = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 3,
    "strength": 0.7,
    "seed": 5,
}


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PIXELS = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
PICTURE = png(PIXELS)
MASK = np.zeros((256, 256), np.uint8)
MASK[64:192, 32:128] = 255
NOTHING = png(np.zeros((256, 256, 4), np.uint8))


def asked(server: RunningServer, operation: str, **fields: Any) -> dict[str, Any]:
    return server.post(operation, **{**SMALL, **fields}).json()


def drawn(server: RunningServer, operation: str, **fields: Any) -> tuple[np.ndarray, dict[str, Any]]:
    body = asked(server, operation, **fields)
    assert body["status"] == "success", body
    picture = Image.open(io.BytesIO(HTTP.get(body["output"][0]).content))
    return np.asarray(picture), body


@pytest.mark.parametrize("model_id", ["stable-diffusion-v1-5", "sdxl"])
def test_a_picture_is_redrawn_whatever_form_it_comes_in(server: RunningServer, model_id: str):
    wide = png(np.hstack([PIXELS[:, :64] * 0, PIXELS, PIXELS[:, :64] * 0]))
    first, body = drawn(server, "img2img", model_id=model_id, init_image=PICTURE)
    assert first.shape == (256, 256, 3)
    assert (body["meta"]["strength"], body["meta"]["init_image"]) == (0.7, None)
    as_uri, _ = drawn(
        server, "images/img2img", model_id=model_id, init_image=f"data:image/png;base64,{PICTURE}"
    )
    centre, _ = drawn(server, "img2img", model_id=model_id, init_image=wide)
    assert np.array_equal(first, as_uri)
    assert np.array_equal(first, centre)
    stronger, _ = drawn(server, "img2img", model_id=model_id, init_image=PICTURE, strength=1)
    assert not np.array_equal(first, stronger)


def test_a_picture_that_this_server_drew_can_be_redrawn_by_its_url(server: RunningServer):
    _, body = drawn(server, "text2img")
    first, again = drawn(server, "img2img", init_image=body["output"][0])
    assert again["meta"]["init_image"] == body["output"][0]
    as_text = asked(server, "text2img", base64="yes")
    elsewhere = as_text["output"][0].replace("127.0.0.1", "localhost")
    second, _ = drawn(server, "img2img", init_image=elsewhere)
    assert np.array_equal(first, second)


def test_outside_the_mask_a_picture_stays_as_it_was_sent(server: RunningServer):
    picture, _ = drawn(server, "inpaint", init_image=PICTURE, mask_image=png(MASK))
    assert np.array_equal(picture[MASK == 0], PIXELS[MASK == 0])
    assert np.abs(picture[MASK > 0].astype(int) - PIXELS[MASK > 0]).mean() > 10


@pytest.mark.parametrize("form", ["strokes on a transparent canvas", "a picture with a transparent hole"])
def test_a_mask_with_transparency_says_the_same_as_one_without(server: RunningServer, form: str):
    if form == "strokes on a transparent canvas":
        sent = np.dstack([np.full_like(PIXELS, 255), MASK])
    else:
        sent = np.dstack([PIXELS, 255 - MASK])
    for operation, named in (("inpaint", {}), ("controlnet", {"controlnet_model": "canny"})):
        opaque, _ = drawn(server, operation, **named, init_image=PICTURE, mask_image=png(MASK))
        transparent, _ = drawn(server, operation, **named, init_image=PICTURE, mask_image=png(sent))
        assert np.array_equal(opaque, transparent)


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("img2img", {}, "The init_image field is required."),
    ("img2img", {"init_image": "toB64('https://example.com')"}, "init_image is not base64 text"),
    ("img2img", {"init_image": "aGVsbG8="}, "init_image is not a PNG, JPEG, WebP, GIF, BMP or TIFF picture"),
    ("img2img", {"init_image": "http://localhost.invalid/x.png"}, "init_image could not be fetched"),
    ("img2img", {"init_image": PICTURE, "strength": 0.1}, "strength leaves none of 3 steps to draw"),
    ("controlnet", {"controlnet_model": "canny"}, "The init_image field is required."),
    ("controlnet", {"init_image": PICTURE}, "The controlnet_model field is required."),
    ("controlnet", {"controlnet_model": "x", "init_image": PICTURE}, "controlnet_model x is not on this"),
    ("controlnet", {"controlnet_model": "canny", "init_image": "x"}, "init_image is not base64 text"),
    ("inpaint", {"init_image": PICTURE}, "The mask_image field is required."),
    ("inpaint", {"init_image": PICTURE, "mask_image": PICTURE[:200]}, "mask_image is damaged or cut off"),
    (
        "inpaint",
        {"init_image": PICTURE, "mask_image": NOTHING},
        "mask_image is transparent everywhere: nothing",
    ),
]


@pytest.mark.parametrize(("operation", "fields", "text"), ERRORS, ids=lambda value: str(value)[:30])
def test_errors_name_the_field(server: RunningServer, operation: str, fields: dict[str, Any], text: str):
    body = asked(server, operation, **fields)
    assert body["status"] == "error"
    (problems,) = body["message"].values()
    assert problems[0].startswith(text)


def test_a_picture_that_is_too_large_is_told_with_its_field(server: RunningServer):
    huge = png(np.zeros((8000, 8000), np.uint8))
    body = asked(server, "inpaint", init_image=PICTURE, mask_image=huge)
    assert body["message"] == {"mask_image": ["mask_image has more than 50 megapixels"]}


@pytest.mark.parametrize("operation", ["img2img", "inpaint", "controlnet"])
@pytest.mark.parametrize("family", ["", "images/", "community/", "txt2img/"])
def test_every_path_family_knows_the_operation(server: RunningServer, operation: str, family: str):
    body = asked(server, f"{family}{operation}", width=1)
    assert body["message"]["width"] == ["width must be between 256 and 1024"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("v3/text2img", {}),
        ("v6/realtime/img2img", {"init_image": PICTURE}),
    ],
)
def test_a_path_that_names_no_checkpoint_draws_with_the_default_one(
    server: RunningServer, path: str, body: dict[str, object]
):
    sent = {"key": server.key, "prompt": "a red circle", "steps": 3, "width": 256, "height": 256, **body}
    said = HTTP.post(f"{server.url}/api/{path}", json=sent).json()
    assert said["status"] == "success", said
    listed = HTTP.post(f"{server.url}/api/v4/dreambooth/model_list", json={"key": server.key}).json()
    assert said["meta"]["model"] in [each["model_id"] for each in listed]
    assert HTTP.get(said["output"][0]).headers["content-type"] == "image/png"


def test_a_guide_steers_the_picture_however_it_is_sent(server: RunningServer):
    blocks = np.kron(PIXELS[:8, :8], np.ones((32, 32, 1), np.uint8))
    edges = np.repeat(cv2.Canny(blocks, 100, 200)[..., None], 3, axis=2)
    same = {"controlnet_model": "canny", "controlnet_type": "canny"}
    photograph, body = drawn(server, "controlnet", **same, auto_hint="yes", init_image=png(blocks))
    guide, _ = drawn(server, "controlnet", **same, auto_hint="no", control_image=png(edges))
    other, _ = drawn(server, "controlnet", **same, auto_hint="no", control_image=png(255 - edges))
    assert np.array_equal(photograph, guide)
    assert not np.array_equal(guide, other)
    assert (body["meta"]["controlnet_model"], body["meta"]["strength"]) == ("canny", None)


def test_several_controlnets_repaint_together(server: RunningServer):
    picture, _ = drawn(
        server,
        "controlnet",
        controlnet_model="canny,openpose",
        controlnet_conditioning_scale="0.5,1",
        auto_hint="no",
        guess_mode="yes",
        init_image=PICTURE,
        mask_image=png(MASK),
    )
    assert np.array_equal(picture[MASK == 0], PIXELS[MASK == 0])


def test_a_preprocessor_without_its_weights_is_named(server: RunningServer):
    body = asked(server, "controlnet", controlnet_model="openpose", auto_hint="yes", init_image=PICTURE)
    (text,) = body["message"]["auto_hint"]
    assert text.startswith(
        "auto_hint openpose needs weights that are not on this server; send the control image itself instead."
    )
    assert "body_pose_model.pth" in text
    assert "understudy weights pull" in text


def test_a_controlnet_for_inpainting_gets_the_picture_without_the_masked_part(server: RunningServer):
    same = {"controlnet_model": "canny", "init_image": PICTURE, "mask_image": png(MASK)}
    as_it_is, _ = drawn(server, "controlnet", **same)
    picture, _ = drawn(server, "controlnet", **same, controlnet_type="inpaint")
    assert np.array_equal(picture[MASK == 0], PIXELS[MASK == 0])
    assert not np.array_equal(picture, as_it_is)


@pytest.mark.slow
def test_everything_that_can_be_asked_for_is_drawn_in_one_request(server: RunningServer):
    everything = {
        "prompt": "une ((église)) rouge, night_scene",
        "negative_prompt": "flou",
        "samples": 2,
        "multi_lingual": "yes",
        "enhance_prompt": "yes",
        "safety_checker": "yes",
        "safety_checker_type": "pixelate",
        "controlnet_model": "canny,openpose",
        "controlnet_conditioning_scale": "1,0.5",
        "auto_hint": "no",
        "guess_mode": "yes",
        "init_image": PICTURE,
        "control_image": png(255 - PIXELS),
        "mask_image": png(MASK),
        "panorama": "yes",
        "self_attention": "yes",
        "highres_fix": "yes",
        "lora_model": "more_details,animie",
        "lora_strength": "0.5,0.3",
        "embeddings_model": "night_scene",
        "vae": "sd-vae-ft-mse",
        "clip_skip": 2,
        "tomesd": "yes",
        "scheduler": "DPMSolverMultistepScheduler",
        "use_karras_sigmas": "yes",
        "algorithm_type": "sde-dpmsolver++",
        "temp": "yes",
    }
    first, body = drawn(server, "controlnet", **everything)
    assert len(body["output"]) == 2
    assert np.array_equal(first[MASK == 0], PIXELS[MASK == 0])
    assert np.abs(first[MASK > 0].astype(int) - PIXELS[MASK > 0]).mean() > 10
    again, _ = drawn(server, "controlnet", **everything)
    assert np.array_equal(first, again)
    without, _ = drawn(server, "controlnet", **{**everything, "panorama": "no"})
    assert not np.array_equal(first, without)
    larger, body = drawn(server, "controlnet", **everything, upscale="yes")
    assert larger.shape == (512, 512, 3)
    assert (body["meta"]["panorama"], body["meta"]["upscale"]) == ("yes", "yes")
