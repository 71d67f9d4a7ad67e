"""Segmind's further pages of Stable Diffusion and of the upscaler, on a server of small checkpoints."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmind
import yaml
from PIL import Image
from segmind.v2 import InferenceFailed

from pipelines import image_io
from pipelines.demo.world.figure import demo_skeleton
from tests import documented_bodies as documented
from tests.running_server import HTTP, RunningServer, preloading, start_server

WAIT_S = 60.0
QUICK = {"num_inference_steps": 20}


def png(pixels: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PIXELS = np.kron(
    np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8), np.ones((128, 128, 1), np.uint8)
)
MASK = np.zeros((512, 512), np.uint8)
MASK[:, 256:] = 255
PICTURE = png(PIXELS)


def opened(content: bytes) -> Image.Image:
    """The picture; it is not flat."""
    picture = Image.open(BytesIO(content)).convert("RGB")
    assert any(low != high for low, high in picture.getextrema())
    return picture


def drawn(server: RunningServer, slug: str, body: Mapping[str, Any]) -> Image.Image:
    with server.client() as client:
        answer = client.post(f"/v1/{slug}", json=body)
    assert answer.status_code == 200, answer.text
    return opened(answer.content)


@pytest.mark.slow
def test_the_sample_of_text_to_image_draws_as_the_vendor_s_sdk_asks(server: RunningServer) -> None:
    client = segmind.SegmindClient(api_key=server.key, base_url=f"{server.url}/v1", timeout=WAIT_S)
    at_once = client.run_sync("sd1.5-txt2img", **documented.SD15_TXT2IMG)
    assert at_once.headers["x-seed-value"] == "17123564234"
    assert opened(at_once.content).size == (512, 512)
    queued = client.run("sd1.5-txt2img", **documented.SD15_TXT2IMG)
    assert HTTP.get(queued["output"]).content == at_once.content


def test_the_sample_of_inpainting_repaints_what_the_mask_shows_in_white(server: RunningServer) -> None:
    body = {**documented.SD15_INPAINTING, "image": PICTURE, "mask": png(MASK), "base64": True}
    with server.client() as client:
        answer = client.post("/v1/sd1.5-inpainting", json=body).json()
    pixels = np.asarray(opened(base64.b64decode(answer["image"])))
    assert np.array_equal(pixels[:, :256], PIXELS[:, :256])
    assert not np.array_equal(pixels[:, 256:], PIXELS[:, 256:])


@pytest.mark.slow
def test_the_sample_of_a_controlnet_follows_the_picture(server: RunningServer) -> None:
    body = {**documented.SD15_CONTROLNET_CANNY, **QUICK}
    assert drawn(server, "sd1.5-controlnet-canny", {**body, "image": PICTURE}).size == (512, 512)


@pytest.mark.slow
def test_the_picture_and_the_strength_of_a_controlnet_matter(server: RunningServer) -> None:
    body = {**documented.SD15_CONTROLNET_CANNY, **QUICK}
    turned = png(np.ascontiguousarray(PIXELS[::-1]))
    changes = ({"image": PICTURE}, {"image": turned}, {"image": PICTURE, "strength": 0.1})
    pictures = [drawn(server, "sd1.5-controlnet-canny", body | change).tobytes() for change in changes]
    assert len({*pictures}) == 3
    skeleton = base64.b64encode(image_io.encode(demo_skeleton(256, 384), "png")).decode()
    posed = {**body, "image": skeleton, "prompt": "a dancer"}
    assert drawn(server, "sd1.5-controlnet-openpose", posed).size == (512, 768)


def test_a_photograph_without_a_pose_detector_is_refused_with_how_to_get_one(server: RunningServer) -> None:
    body = {"prompt": "a dancer", "image": PICTURE}
    key = server.account("poser", 1)
    with server.client(key) as client:
        refused = client.post("/v1/sd1.5-controlnet-openpose", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("image: openpose needs weights that are not on this server")
        sdk = segmind.SegmindClient(api_key=key, base_url=f"{server.url}/v1", timeout=WAIT_S)
        with pytest.raises(InferenceFailed, match="image: openpose needs weights") as failed:
            sdk.run("sd1.5-controlnet-openpose", **body)
        assert "understudy weights pull" in str(failed.value.detail)
        assert client.get("/v1/get-user-credits").json()["credits"] == 1.0


@pytest.mark.parametrize("kind", ["depth", "scribble", "softedge", "mlsd"])
def test_a_controlnet_that_is_not_here_is_named_with_what_is(server: RunningServer, kind: str) -> None:
    body = {**documented.SD15_CONTROLNET_CANNY, "image": PICTURE}
    with server.client() as client:
        for version in ("v1", "v2"):
            answer = client.post(f"/{version}/sd1.5-controlnet-{kind}", json=body)
            assert answer.status_code == 404
            assert f"no ControlNet {kind} " in answer.json()["error"]
            assert "canny, openpose" in answer.json()["error"]


def test_the_sample_of_the_upscaler_doubles_a_picture(server: RunningServer) -> None:
    small = png(np.ascontiguousarray(PIXELS[100:164, 100:196]))
    with server.client() as client:
        answer = client.post("/v1/esrgan", json={**documented.ESRGAN, "image": small})
        larger = client.post("/v1/esrgan", json={"image": small, "scale": 8, "output_format": "png"})
        faces = client.post("/v1/esrgan", json={"image": small, "face_enhance": True})
    assert answer.headers["content-type"] == "image/jpeg"
    assert opened(answer.content).size == (192, 128)
    assert (larger.headers["content-type"], opened(larger.content).size) == ("image/png", (768, 512))
    assert len(json.loads(faces.headers["x-warnings"])) == 1


def test_the_samples_of_sdxl_draw_and_say_what_has_no_effect(server: RunningServer) -> None:
    quick = {**QUICK, "img_width": 512, "img_height": 512}
    with server.client() as client:
        answer = client.post("/v1/sdxl1.0-txt2img", json={**documented.SDXL10_TXT2IMG, **quick})
    assert opened(answer.content).size == (512, 512)
    warned = [text.partition(":")[0] for text in json.loads(answer.headers["x-warnings"])]
    assert warned == ["refiner", "strength", "high_noise_fraction"]


@pytest.mark.slow
def test_the_samples_of_sdxl_draw_at_their_own_sizes(server: RunningServer) -> None:
    assert drawn(server, "sdxl1.0-txt2img", documented.SDXL10_TXT2IMG).size == (896, 1152)
    sent = {**documented.SDXL_IMG2IMG, **QUICK, "image": PICTURE, "strength": 0.3}
    assert drawn(server, "sdxl-img2img", sent).size == (1024, 1024)
    small = {**sent, "img_width": 512, "img_height": 640}
    assert drawn(server, "sdxl1.0-img2img", small).size == (512, 640)
    masked = {**documented.SDXL_INPAINT, **QUICK, "strength": 0.3, "image": PICTURE, "mask": png(MASK)}
    assert drawn(server, "sdxl-inpaint", masked).size == (1024, 1024)


def test_text_that_a_text_encoder_does_not_read_is_named(server: RunningServer) -> None:
    body = {"prompt": "a fox " * 200 + "猫", "width": 512, "height": 512, "steps": 1, "base64": True}
    with server.client() as client:
        answer = client.post("/v1/kolors", json=body)
    (warning,) = json.loads(answer.headers["x-warnings"])
    assert warning.startswith('prompt: ChatGLM reads only its first 256 tokens; what begins with "')
    assert answer.json()["warnings"] == [warning]


@pytest.fixture
def with_every_controlnet(tmp_path: Path, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """A server whose manifest has every kind, all of them drawn by the network that follows edges."""
    manifest = preloading(demo_manifest_path, tmp_path / "checkpoints", "stable-diffusion-v1-5")
    content = yaml.safe_load(manifest.read_text())
    edges = content["controlnets"]["canny"]
    content["controlnets"] |= dict.fromkeys(("depth", "scribble", "softedge", "mlsd"), edges)
    manifest.write_text(yaml.safe_dump(content))
    (tmp_path / "server").mkdir()
    running = start_server(tmp_path / "server", manifest)
    yield running
    running.stop()


@pytest.mark.slow
def test_the_samples_of_the_other_controlnets_draw(with_every_controlnet: RunningServer) -> None:
    samples = {
        "depth": documented.SD15_CONTROLNET_DEPTH,
        "scribble": documented.SD15_CONTROLNET_SCRIBBLE,
        "softedge": documented.SD15_CONTROLNET_SOFTEDGE,
    }
    for kind, sample in samples.items():
        picture = drawn(
            with_every_controlnet, f"sd1.5-controlnet-{kind}", {**sample, **QUICK, "image": PICTURE}
        )
        assert picture.size == (512, 512)
