"""Pictures that callers of the segmind dialect send, upload and open."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipelines.request import Inpainting
from tests.contract.segmind_application.application import (
    FURTHER_SLUGS,
    PICTURE,
    World,
    body,
    credits_of,
    opened,
    picture_of,
    png,
)


def test_a_stored_output_opens_without_a_key_and_is_never_taken_for_a_page(client: TestClient) -> None:
    answer = client.post("/v1/kolors", json=body("kolors", number_of_images=2))
    url = json.loads(answer.headers["x-output-urls"])[1]
    seen = opened(client, url)
    assert seen.headers["content-type"] == "image/webp"
    assert seen.headers["x-content-type-options"] == "nosniff"
    assert client.head(url).status_code == 200
    assert "x-remaining-credits" not in seen.headers


@pytest.mark.parametrize("name", ["nothing.png", "%2e%2e%2fdb.sqlite", "a/b.png", "%00.png"])
def test_an_unknown_output_is_not_found(client: TestClient, name: str) -> None:
    answer = client.get(f"/generations/{name}")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


@pytest.mark.parametrize("given", [
    {"image": PICTURE},
    {"image": f"data:image/png;base64,{PICTURE}"},
    {"image": PICTURE.rstrip("=") + "\n"},
    {"imageUrl": f"data:image/png;base64,{PICTURE}"},
])  # fmt: skip
def test_the_picture_may_be_any_text_that_holds_it(
    world: World, client: TestClient, given: dict[str, str]
) -> None:
    for encoding in ("json", "data"):
        answer = client.post("/v1/sd3-med-pose", **{encoding: {"prompt": "a cat", **given}})
        assert answer.status_code == 200, answer.text
    assert [(drawn.image.width, drawn.image.height) for drawn in world.engine.requests] == [(96, 64)] * 2


@pytest.mark.parametrize("name", ["image", "file"])
def test_the_picture_may_be_a_file_part(client: TestClient, name: str) -> None:
    files = {name: ("a.png", png(), "image/png")}
    answer = client.post("/v1/sd1.5-img2img", data={"prompt": "a cat", "samples": "1"}, files=files)
    assert picture_of(answer).size == (512, 512)


@pytest.mark.parametrize("picture", [
    "toB64('https://www.segmind.com/sd-img2img-input.jpeg')",
    "not a picture",
    base64.b64encode(b"neither is this").decode(),
    PICTURE[:60],
    "data:image/png;base64,",
    "\ud800",
])  # fmt: skip
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_text_that_holds_no_picture_is_refused(client: TestClient, version: str, picture: str) -> None:
    answer = client.post(
        f"/{version}/sd1.5-img2img", content=json.dumps({"prompt": "a cat", "image": picture}).encode()
    )
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid input image"})


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://169.254.169.254/latest", "http://[::1]/x", "http://"]
)
def test_a_picture_at_a_private_address_is_not_fetched(client: TestClient, url: str) -> None:
    answer = client.post("/v1/sd1.5-img2img", json=body("sd1.5-img2img", image=url))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("image: ") or answer.json()["error"] == "Invalid input image"


def test_an_uploaded_picture_can_be_named_by_its_url(world: World, client: TestClient) -> None:
    upload = client.post("/upload-asset", json={"data_urls": [f"data:image/png;base64,{PICTURE}"]})
    said = upload.json()
    assert said["file_urls"] == said["urls"]
    assert isinstance(said["message"], str)
    stored = opened(client, said["urls"][0])
    assert (stored.content, stored.headers["content-type"]) == (png(), "image/png")
    answer = client.post("/v1/sd3-med-pose", json={"prompt": "a cat", "image": said["urls"][0] + "?v=1"})
    assert answer.status_code == 200, answer.text
    assert (world.engine.requests[0].image.width, world.engine.requests[0].image.height) == (96, 64)
    gone = client.post(
        "/v1/sd3-med-pose", json={"prompt": "a cat", "image": "http://testserver/generations/gone.png"}
    )
    assert (gone.status_code, gone.json()) == (400, {"error": "image: this upload does not exist any more"})


@pytest.mark.parametrize(
    "host",
    [
        "http://localhost:8000",
        "http://127.0.0.1",
        "https://pictures.example",
        "https://pictures.example/below",
    ],
)
def test_a_picture_of_this_server_is_read_from_storage_under_any_of_its_names(
    world: World, client: TestClient, host: str
) -> None:
    upload = client.post("/upload-asset", json={"data_urls": [f"data:image/png;base64,{PICTURE}"]})
    path = upload.json()["urls"][0].removeprefix("http://testserver")
    fields = {"prompt": "a cat", "image": f" {host}{path}?download=1#top"}
    answer = client.post("/v1/sd3-med-pose", json=fields)
    assert answer.status_code == 200, answer.text
    assert (world.engine.requests[0].image.width, world.engine.requests[0].image.height) == (96, 64)


@pytest.mark.parametrize(
    "path", ["/outputs/", "/outputs/../accounts.db", "/outputs/no-such-file.png", "/outputs/%00"]
)
def test_what_does_not_lie_in_storage_is_another_servers(client: TestClient, path: str) -> None:
    fields = {"prompt": "a cat", "image": f"http://127.0.0.1:1{path}"}
    answer = client.post("/v1/sd3-med-pose", json=fields)
    problem = "image: could not be fetched: its address is not a public one"
    assert (answer.status_code, answer.json()) == (400, {"error": problem})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_uploads_are_kept_as_they_are(client: TestClient, kind: str) -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    data_url = f"data:image/whatever;base64,{base64.b64encode(file.getvalue()).decode()}"
    url = client.post("/v1/upload-asset", json={"data_urls": [data_url]}).json()["file_urls"][0]
    stored = opened(client, url)
    assert (stored.content, stored.headers["content-type"]) == (file.getvalue(), Image.MIME[kind])


@pytest.mark.parametrize(("given", "error"), [
    (None, "data_urls: field is required"),
    ([], "data_urls: must be 1 to 20 data URLs"),
    (["data:,"] * 21, "data_urls: must be 1 to 20 data URLs"),
    (["https://example.com/a.png"], "data_urls: must be 1 to 20 data URLs"),
    ([7], "data_urls: must be 1 to 20 data URLs"),
    (["data:image/png;base64,AAAA"], "Invalid input image"),
    (["data:image/svg+xml;base64,PHN2Zy8+"], "Invalid input image"),
    ([f"data:image/png;base64,{PICTURE}", "data:text/html,x"], "Invalid input image"),
])  # fmt: skip
def test_uploads_that_are_no_pictures_are_refused(client: TestClient, given: object, error: str) -> None:
    answer = client.post("/upload-asset", json={"data_urls": given})
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_picture_over_the_limit_is_too_large(client: TestClient) -> None:
    noise = base64.b64encode(b"\x89PNG" + bytes(1_000_001)).decode()
    answer = client.post("/v1/sd1.5-img2img", json=body("sd1.5-img2img", image=noise))
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("image: ")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("slug", [slug for slug in FURTHER_SLUGS if "controlnet" in slug or slug == "esrgan"])
def test_missing_weights_are_named_before_a_picture_is_fetched_and_cost_nothing(
    world: World, client: TestClient, version: str, slug: str
) -> None:
    before = credits_of(client, world.rich)
    answer = client.post(f"/{version}/{slug}", json={"prompt": "a cat", "image": "http://127.0.0.1:1/a.png"})
    assert answer.status_code == 404
    missing = "upscaler" if slug == "esrgan" else f"ControlNet {slug.removeprefix('sd1.5-controlnet-')}"
    assert answer.json()["error"].startswith(f"This server has no {missing}")
    assert "weights.yaml names none" in answer.json()["error"]
    assert credits_of(client, world.rich) == before
    assert world.engine.requests == []


def test_picture_and_mask_may_be_file_parts_or_base64_in_a_form(world: World, client: TestClient) -> None:
    files = {"image": ("a.png", png(), "image/png"), "mask": ("b.png", png(64, 64), "image/png")}
    by_file = client.post("/v1/sd1.5-inpainting", data={"prompt": "a cat"}, files=files)
    mask = base64.b64encode(png(64, 64)).decode()
    form = {"prompt": "a cat", "imageUrl": f"data:image/png;base64,{PICTURE}", "maskUrl": mask}
    by_form = client.post("/v1/sd1.5-inpainting", data=form)
    assert (by_file.status_code, by_form.status_code) == (200, 200)
    first, second = world.engine.requests
    assert isinstance(first, Inpainting)
    assert isinstance(second, Inpainting)
    assert (first.image, first.mask) == (second.image, second.mask)


@pytest.mark.parametrize("name", ["image", "mask"])
def test_a_picture_or_mask_that_is_none_is_refused(client: TestClient, name: str) -> None:
    sent = {"prompt": "a cat", "image": PICTURE, "mask": PICTURE, name: "not a picture"}
    answer = client.post("/v1/sd1.5-inpainting", json=sent)
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid input image"})
    fetched = client.post("/v1/sd1.5-inpainting", json={**sent, name: "http://127.0.0.1:1/a.png"})
    assert fetched.status_code == 400
    assert fetched.json()["error"].startswith(f"{name}: ")
