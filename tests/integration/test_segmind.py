"""Clients of Segmind against a running server: the vendor's SDK and the documentation's own samples."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
import segmind
from PIL import Image, ImageChops
from segmind.exceptions import SegmindError
from segmind.files import Files
from segmind.v2 import InferenceFailed

from pipelines import image_io
from pipelines.demo.world.figure import demo_skeleton
from tests.documented_bodies import (
    KANDINSKY22,
    KOLORS,
    SD3_MED_POSE,
    SD15_IMG2IMG,
    program_with_form,
    program_with_json,
)
from tests.running_server import HTTP, RunningServer, eventually

SLUGS = ["kandinsky2.2-txt2img", "kolors", "sd3-med-pose", "sd1.5-img2img"]
WAIT_S = 60.0


@pytest.fixture(scope="module")
def skeleton() -> bytes:
    return image_io.encode(demo_skeleton(256, 384), "png")


def photograph() -> bytes:
    """A picture in which nobody is to be found."""
    file = BytesIO()
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def params(slug: str, skeleton: bytes) -> dict[str, Any]:
    """A body that is drawn in a second or two."""
    match slug:
        case "kandinsky2.2-txt2img":
            return {"prompt": "a red fox", "img_width": 512, "img_height": 512, "prior_steps": 2, "seed": 5}
        case "kolors":
            return {"prompt": "一只狐狸", "width": 520, "height": 512, "steps": 2, "seed": 5}
        case "sd3-med-pose":
            picture = base64.b64encode(skeleton).decode()
            return {"prompt": "a dancer", "image": picture, "num_inference_steps": 2}
        case _:
            picture = base64.b64encode(photograph()).decode()
            return {"prompt": "a lake", "image": picture, "strength": 0.1, "seed": 5}


def opened(content: bytes) -> Image.Image:
    """The picture; it is not flat."""
    picture = Image.open(BytesIO(content))
    assert any(low != high for low, high in picture.convert("RGB").getextrema())
    return picture


def sdk(server: RunningServer, key: str | None = None) -> segmind.SegmindClient:
    return segmind.SegmindClient(api_key=key or server.key, base_url=f"{server.url}/v1", timeout=WAIT_S)


@pytest.mark.parametrize(
    "slug", [SLUGS[0], *(pytest.param(slug, marks=pytest.mark.slow) for slug in SLUGS[1:])]
)
@pytest.mark.client("segmind", "Python", happy="run_sync of the four documented pages")
def test_the_sdk_draws_synchronously(server: RunningServer, skeleton: bytes, slug: str) -> None:
    response = sdk(server).run_sync(slug, **params(slug, skeleton))
    picture = opened(response.content)
    assert response.headers["content-type"] == ("image/webp" if slug == "kolors" else "image/jpeg")
    if slug != "sd3-med-pose":
        assert picture.size == ((520, 512) if slug == "kolors" else (512, 512))
        assert response.headers["x-seed-value"] == "5"
    else:
        assert response.headers["x-seed-value"] == "698845"
    assert float(response.headers["x-remaining-credits"]) > 0


@pytest.mark.parametrize("slug", [pytest.param(SLUGS[0], marks=pytest.mark.slow), *SLUGS[1:]])
@pytest.mark.client("segmind", "Python", happy="run, which polls v2")
def test_the_sdk_draws_through_the_queue_and_finds_the_same_picture(
    server: RunningServer, skeleton: bytes, slug: str
) -> None:
    result = sdk(server).run(slug, **params(slug, skeleton))
    assert result["status"] == "COMPLETED"
    assert result["metrics"]["cost"] > 0
    stored = HTTP.get(result["output"]).raise_for_status()
    assert stored.content == sdk(server).run_sync(slug, **params(slug, skeleton)).content
    opened(stored.content)


@pytest.mark.client("segmind", "Python", happy="submit")
def test_the_sdk_handle_tells_status_and_result(server: RunningServer) -> None:
    job = sdk(server).submit_async("kolors", **params("kolors", b""))
    assert job.status()["status"] in ("QUEUED", "PROCESSING", "COMPLETED")
    assert job.wait(timeout=WAIT_S, interval=0.05) == job.result()


ERRORS: list[tuple[str, dict[str, Any], int, str]] = [
    ("kolors", {}, 400, "prompt: field is required"),
    ("kolors", {"prompt": "x", "steps": 51}, 400, "steps: must be between 1 and 50"),
    ("kandinsky2.2-txt2img", {"prompt": "x", "samples": "no"}, 400, "samples: must be a whole number"),
    (
        "kolors",
        {"prompt": "x", "output_format": "gif"},
        406,
        "output_format: must be one of webp, jpg, jpeg, png",
    ),
    ("sd1.5-img2img", {"prompt": "x", "image": "toB64('https://x')"}, 400, "Invalid input image"),
    ("no-such-model", {"prompt": "x"}, 404, "The requested URL does not exist"),
]


@pytest.mark.parametrize(("slug", "body", "status", "detail"), ERRORS)
@pytest.mark.client("segmind", "Python", error="wrong value, unknown model")
def test_the_sdk_raises_its_error_with_the_documented_text(
    server: RunningServer, slug: str, body: dict[str, Any], status: int, detail: str
) -> None:
    for call in (sdk(server).run_sync, sdk(server).run):
        with pytest.raises(SegmindError) as raised:
            call(slug, **body)
        assert (raised.value.status, raised.value.detail) == (status, detail)


@pytest.mark.client("segmind", "Python", error="bad key")
def test_the_sdk_learns_of_a_wrong_key(server: RunningServer) -> None:
    with pytest.raises(SegmindError) as raised:
        sdk(server, "SG_wrong").run_sync("kolors", prompt="x")
    assert (raised.value.status, raised.value.detail) == (
        401,
        "Unauthorized. API key is invalid or may have expired",
    )


@pytest.mark.client("segmind", "Python", error="no credits")
def test_the_sdk_learns_of_missing_credits(server: RunningServer) -> None:
    key = server.account("penniless", 0.001)
    with pytest.raises(SegmindError) as raised:
        sdk(server, key).run("kolors", prompt="x")
    assert raised.value.status == 406
    assert raised.value.detail is not None
    assert raised.value.detail.startswith("Insufficient credits: balance 0.001, required ")


@pytest.mark.client("segmind", "Python", error="failed in v2")
def test_the_sdk_learns_why_a_queued_request_failed_and_is_not_charged(server: RunningServer) -> None:
    key = server.account("nobody there", 1)
    picture = base64.b64encode(photograph()).decode()
    with pytest.raises(InferenceFailed) as raised:
        sdk(server, key).run("sd3-med-pose", prompt="x", image=picture, num_inference_steps=1)
    assert raised.value.detail
    assert raised.value.status_body["status"] == "FAILED"
    with server.client(key) as client:
        assert client.get("/v1/get-user-credits").json()["credits"] == 1.0


def test_a_photograph_without_a_detector_is_refused_with_how_to_install_one(server: RunningServer) -> None:
    key = server.account("photographer", 1)
    picture = base64.b64encode(photograph()).decode()
    with server.client(key) as client:
        answer = client.post("/v1/sd3-med-pose", json={"prompt": "x", "image": picture})
        assert answer.status_code == 400
        assert "retry-after" not in answer.headers
        assert answer.json()["error"].startswith("image: is no picture of an OpenPose skeleton")
        assert "`understudy weights pull`" in answer.json()["error"]
        assert client.get("/v1/get-user-credits").json()["credits"] == 1.0


def test_an_answer_says_how_often_the_network_was_asked(server: RunningServer, skeleton: bytes) -> None:
    body = {**params("sd3-med-pose", skeleton), "num_inference_steps": 2, "sampler": "dpm_2"}
    answer = sdk(server).run_sync("sd3-med-pose", **body)
    assert json.loads(answer.headers["x-output-metadata"])["evaluations"] == 3


def test_dpm_adaptive_is_reported_with_the_evaluations_that_it_really_made(
    server: RunningServer, skeleton: bytes
) -> None:
    """Before it begins it guesses the two steps that were asked for."""
    chosen = {"num_inference_steps": 2, "sampler": "dpm_adaptive", "scheduler": "simple", "guidance_scale": 1}
    answer = sdk(server).run_sync("sd3-med-pose", **{**params("sd3-med-pose", skeleton), **chosen})
    evaluations = json.loads(answer.headers["x-output-metadata"])["evaluations"]
    assert evaluations > 6
    address = f"/v2/requests/{answer.headers['x-request-id']}"
    with server.client() as client:
        told = [client.get(path).json()["metrics"]["evaluations"] for path in (address, f"{address}/status")]
    assert told == [evaluations, evaluations]


@pytest.mark.client("segmind", "Python", happy="upload-asset")
def test_the_sdk_uploads_a_picture_that_a_call_can_name(
    server: RunningServer, skeleton: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK has this address as a constant of its own.
    monkeypatch.setattr(Files, "STORAGE_BASE_URL", server.url)
    (tmp_path / "pose.png").write_bytes(skeleton)
    (tmp_path / "scene.jpg").write_bytes(photograph())
    uploaded = sdk(server).files.upload([tmp_path / "pose.png", tmp_path / "scene.jpg"])
    assert [HTTP.get(url).content for url in uploaded["file_urls"]] == [skeleton, photograph()]
    body = params("sd1.5-img2img", skeleton)
    named = sdk(server).run_sync("sd1.5-img2img", **{**body, "image": uploaded["file_urls"][1]})
    assert named.content == sdk(server).run_sync("sd1.5-img2img", **body).content


def run_sample(server: RunningServer, sample: str) -> bytes:
    """Run a documented sample with another host and key; what it prints is the repr of the answer's bytes."""
    printed = StringIO()
    code = sample.replace("https://api.segmind.com", server.url).replace("YOUR_API_KEY", server.key)
    with redirect_stdout(printed):
        exec(compile(code, "sample", "exec"), {})
    content = eval(printed.getvalue(), {"__builtins__": {}})
    assert isinstance(content, bytes)
    return content


@pytest.mark.client("requests, as documented", "Python", happy="kandinsky2.2-txt2img")
def test_the_documented_sample_of_kandinsky_draws(server: RunningServer) -> None:
    picture = opened(run_sample(server, program_with_json("kandinsky2.2-txt2img", KANDINSKY22)))
    assert (picture.format, picture.size) == ("JPEG", (512, 768))


@pytest.mark.client("requests, as documented", "Python", happy="kolors")
def test_the_documented_sample_of_kolors_draws(server: RunningServer) -> None:
    picture = opened(run_sample(server, program_with_form("kolors", KOLORS)))
    assert (picture.format, picture.size) == ("WEBP", (1024, 1024))


@pytest.mark.client("requests, as documented", "Python", happy="sd3-med-pose")
def test_the_documented_sample_of_sd3_draws(server: RunningServer, skeleton: bytes) -> None:
    with server.client() as client:
        data_url = f"data:image/png;base64,{base64.b64encode(skeleton).decode()}"
        url = client.post("/upload-asset", json={"data_urls": [data_url]}).json()["file_urls"][0]
    picture = opened(run_sample(server, program_with_json("sd3-med-pose", SD3_MED_POSE, picture=url)))
    given = Image.open(BytesIO(skeleton))
    assert picture.format == "JPEG"
    assert picture.width / picture.height == pytest.approx(given.width / given.height, rel=0.1)


@pytest.mark.client("requests, as documented", "Python", happy="sd1.5-img2img", error="no picture")
def test_the_documented_sample_of_img2img_names_no_picture_and_draws_with_one(server: RunningServer) -> None:
    with server.client() as client:
        as_it_stands = {**SD15_IMG2IMG, "image": f"toB64('{SD15_IMG2IMG['image']}')"}
        literal = client.post("/v1/sd1.5-img2img", json=as_it_stands)
        assert (literal.status_code, literal.json()) == (400, {"error": "Invalid input image"})
        picture = base64.b64encode(photograph()).decode()
        answer = client.post("/v1/sd1.5-img2img", json={**SD15_IMG2IMG, "image": picture})
    drawn = opened(answer.content)
    assert (drawn.format, drawn.size) == ("JPEG", (512, 512))
    assert answer.headers["x-seed-value"] == "98877465625"


def test_several_samples_come_back_in_every_answer_form(server: RunningServer) -> None:
    body = {**params("sd1.5-img2img", b""), "samples": 2}
    with server.client() as client:
        raw = client.post("/v1/sd1.5-img2img", json=body)
        coded = client.post("/v1/sd1.5-img2img", data={**body, "base64": "True"})
        single = client.post("/v1/sd1.5-img2img", json={**body, "samples": 1, "seed": 6, "base64": 1})
    urls = json.loads(raw.headers["x-output-urls"])
    assert raw.headers["x-seed-value"] == "5,6"
    assert HTTP.get(urls[0]).content == raw.content
    assert len(urls) == 2
    pictures = [opened(base64.b64decode(picture)) for picture in coded.json()["image"]]
    assert (coded.json()["outputs"], [picture.format for picture in pictures]) == (2, ["PNG", "PNG"])
    # The second sample is the picture that its seed draws alone.
    alone = opened(base64.b64decode(single.json()["image"]))
    difference = ImageChops.difference(pictures[1].convert("RGB"), alone.convert("RGB"))
    assert max(high for _, high in difference.getextrema()) <= 1


@pytest.fixture
def photograph_url() -> Iterator[str]:
    """A web server with one picture."""

    class OnePicture(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "image/jpeg")
            self.end_headers()
            self.wfile.write(photograph())

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), OnePicture) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/lake.jpg"
        web.shutdown()
        thread.join()


def test_a_picture_is_fetched_from_its_url(server: RunningServer, photograph_url: str) -> None:
    with server.client() as client:
        by_url = client.post(
            "/v1/sd1.5-img2img", json={**params("sd1.5-img2img", b""), "image": photograph_url}
        )
        as_text = client.post("/v1/sd1.5-img2img", json=params("sd1.5-img2img", b""))
    opened(by_url.content)
    assert by_url.content == as_text.content


def test_a_caller_who_hangs_up_is_not_charged(server: RunningServer) -> None:
    key = server.account("impatient", 0.5)
    body = {"prompt": "x", "samples": 4, "num_inference_steps": 100}
    with server.client(key) as client:

        def credits() -> float:
            return client.get("/v1/get-user-credits").json()["credits"]

        with server.calling("/v1/kandinsky2.2-txt2img", body, key):
            eventually(lambda: credits() < 0.5, WAIT_S)
        eventually(lambda: credits() == 0.5, WAIT_S)
