"""A typed client: every answer goes through a strict model, which fails on a wrong JSON type."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Literal

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict

from tests.running_server import HTTP, RunningServer, eventually, start_server


class Answer(BaseModel):
    """Numbers are numbers and texts are texts; keys that the documentation does not name are left alone."""

    model_config = ConfigDict(strict=True, extra="allow")


# Segmind


class Refusal(Answer):
    error: str


class Encoded(Answer):
    status: Literal["Success"]
    image: str | list[str]
    infer_time: float
    outputs: int
    image_format: str


class Metadata(Answer):
    height: int
    width: int
    samples: int


class Submitted(Answer):
    request_id: str
    status: Literal["QUEUED"]
    poll_url: str
    status_url: str
    response_url: str


class NoMetrics(Answer):
    model_config = ConfigDict(strict=True, extra="forbid")


class Metrics(Answer):
    inference_time: float
    queue_time: float
    total_time: float
    cost: float
    remaining_credits: float
    evaluations: int


class Pending(Answer):
    status: Literal["QUEUED", "PROCESSING"]
    request_id: str
    status_url: str
    response_url: str
    metrics: NoMetrics


class Completed(Answer):
    status: Literal["COMPLETED"]
    request_id: str
    status_url: str
    response_url: str
    metrics: Metrics


class FailedRequest(Answer):
    status: Literal["FAILED"]
    request_id: str
    error: str


class StoredImage(Answer):
    url: str
    content_type: str
    file_name: str
    file_size: int


class Result(Answer):
    status: Literal["COMPLETED"]
    output: str
    images: list[StoredImage]
    seed: int
    prompt: str
    metrics: Metrics
    request_id: str


class Balance(Answer):
    credits: float


class Uploaded(Answer):
    file_urls: list[str]
    urls: list[str]
    message: str


# Enterprise


class Meta(Answer):
    prompt: str
    model_id: str
    negative_prompt: str
    scheduler: str
    revision: str
    safetychecker: Literal["yes", "no"]
    W: int
    H: int
    enable_attention_slicing: str
    file_prefix: str
    guidance_scale: float
    seed: int
    steps: int
    n_samples: int
    upscale: Literal["yes", "no"]
    multi_lingual: Literal["yes", "no"]
    panorama: Literal["yes", "no"]
    self_attention: Literal["yes", "no"]
    embeddings: str | None
    lora: str | None
    outdir: str
    vae: str


class Success(Answer):
    status: Literal["success"]
    generationTime: float
    id: int
    output: list[str]
    nsfw_content_detected: bool
    meta: Meta


class Processing(Answer):
    status: Literal["processing"]
    tip: str
    eta: float
    message: str
    messege: str
    fetch_result: str
    id: int
    output: list[str]
    meta: Meta
    future_links: list[str]


class Fetched(Answer):
    status: Literal["success"]
    id: int
    output: list[str]
    meta: Meta


class NotFetchedYet(Answer):
    status: Literal["processing"]
    message: str
    messege: str
    id: int
    output: list[str]
    tip: str


class EnterpriseRefusal(Answer):
    status: Literal["error"]
    message: str
    messege: str


class WrongKey(Answer):
    """As one published client has it: the misspelt text is a map there, or absent."""

    status: Literal["error"]
    message: str
    messege: dict[str, list[str]] | None = None


class InvalidFields(Answer):
    status: Literal["error"]
    message: dict[str, list[str]]
    messege: dict[str, list[str]]


class SystemDetails(Answer):
    model_count: int
    queue_time: int
    queue_num: int
    status: str


class Schedulers(Answer):
    schedulers: list[str]


class Model(Answer):
    load_data: str
    model_id: str


class Models(Answer):
    models: list[Model]
    status: Literal["success"]


class Done(Answer):
    status: Literal["success"]
    message: str
    messege: str


class Enlarged(Answer):
    status: Literal["success"]
    generationTime: float
    id: int
    output: str


class Checked(Answer):
    status: Literal["success"]
    images: str
    has_nsfw_concept: list[bool]


class UploadedImage(Answer):
    status: Literal["success"]
    message: str
    messege: str
    image_url: str


KOLORS = {"prompt": "a cat", "width": 512, "height": 512, "steps": 1}
KANDINSKY = {"prompt": "a cat", "img_width": 512, "img_height": 512, "prior_steps": 1, "base64": True}
TEXT2IMG: dict[str, Any] = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 2,
}


def enterprise(server: RunningServer, operation: str, key: str | None = None, **fields: Any) -> str:
    body = {"key": key or server.key, **fields}
    return HTTP.post(f"{server.url}/api/v1/enterprise/{operation}", json=body, timeout=120).text


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 2])
def test_segmind_base64_answers(server: RunningServer, samples: int):
    with server.client() as client:
        answer = client.post("/v1/kandinsky2.2-txt2img", json={**KANDINSKY, "samples": samples})
    encoded = Encoded.model_validate_json(answer.text)
    assert isinstance(encoded.image, str if samples == 1 else list)
    assert encoded.outputs == samples
    metadata = Metadata.model_validate_json(answer.headers["x-output-metadata"])
    assert (metadata.width, metadata.height, metadata.samples) == (512, 512, samples)


@pytest.mark.client("strict types", "Python", happy="v2")
def test_segmind_requests_from_submission_to_result(server: RunningServer):
    with server.client() as client:
        submitted = Submitted.model_validate_json(client.post("/v2/kolors", json=KOLORS).text)

        def completed() -> Completed | None:
            text = client.get(submitted.status_url).text
            if '"COMPLETED"' in text:
                return Completed.model_validate_json(text)
            Pending.model_validate_json(text)
            return None

        status = eventually(completed)
        result = Result.model_validate_json(client.get(submitted.response_url).text)
    assert status.request_id == submitted.request_id == result.request_id
    assert [image.url for image in result.images] == [result.output]
    assert result.images[0].file_size == len(HTTP.get(result.output).content)


@pytest.mark.client("strict types", "Python", error="failed in v2")
def test_a_failed_segmind_request(server: RunningServer):
    picture = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(picture, "PNG")
    body = {"prompt": "a dancer", "image": base64.b64encode(picture.getvalue()).decode()}
    with server.client() as client:
        submitted = Submitted.model_validate_json(client.post("/v2/sd3-med-pose", json=body).text)

        def failed() -> FailedRequest | None:
            answer = client.get(submitted.status_url)
            return FailedRequest.model_validate_json(answer.text) if answer.status_code == 422 else None

        assert eventually(failed).request_id == submitted.request_id


def test_segmind_companions(server: RunningServer):
    with server.client() as client:
        assert Balance.model_validate_json(client.get("/v1/get-user-credits").text).credits > 0
        picture = BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        data_url = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
        uploaded = client.post("/upload-asset", json={"data_urls": [data_url, data_url]})
    assert len(Uploaded.model_validate_json(uploaded.text).file_urls) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/kolors", {}), ("/v1/kolors", {"prompt": "x", "output_format": "gif"}), ("/v1/none", {})],
    ids=["field", "enum", "slug"],
)
@pytest.mark.client("strict types", "Python", error="of Segmind")
def test_segmind_refusals(server: RunningServer, path: str, body: dict[str, Any]):
    with server.client() as client:
        assert Refusal.model_validate_json(client.post(path, json=body).text).error


@pytest.mark.client("strict types", "Python", happy="text2img, fetch")
def test_enterprise_success_and_fetch(server: RunningServer):
    drawn = Success.model_validate_json(enterprise(server, "text2img", **TEXT2IMG, samples="2", seed="7"))
    assert (drawn.meta.n_samples, drawn.meta.seed, len(drawn.output)) == (2, 7, 2)
    fetched = Fetched.model_validate_json(enterprise(server, "fetch", request_id=drawn.id))
    assert fetched.output == drawn.output


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Any) -> Iterator[RunningServer]:
    """A server that waits for no picture."""
    folder = tmp_path_factory.mktemp("impatient")
    running = start_server(folder, demo_manifest_path, sync_wait_s="0.01")
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.client("strict types", "Python", happy="processing, then fetch")
def test_enterprise_processing_and_fetch(impatient: RunningServer):
    begun = Processing.model_validate_json(
        enterprise(impatient, "text2img", **{**TEXT2IMG, "num_inference_steps": 50})
    )
    assert len(begun.future_links) == 1

    def fetched() -> Fetched | None:
        text = HTTP.post(begun.fetch_result, json={"key": impatient.key}).text
        if '"processing"' in text:
            NotFetchedYet.model_validate_json(text)
            return None
        return Fetched.model_validate_json(text)

    assert eventually(fetched).output == begun.future_links


@pytest.mark.client("strict types", "Python", error="of enterprise")
def test_enterprise_refusals(server: RunningServer):
    texts = InvalidFields.model_validate_json(enterprise(server, "text2img", model_id="x", width=1)).message
    assert texts["prompt"] == ["The prompt field is required."]
    assert texts["width"] == ["width must be between 256 and 1024"]
    unknown = enterprise(server, "text2img", **{**TEXT2IMG, "model_id": "none"})
    assert EnterpriseRefusal.model_validate_json(unknown).message == "Model id not found"
    wrong = enterprise(server, "system_details", key="wrong")
    assert WrongKey.model_validate_json(wrong).message == "Invalid Api Key"


@pytest.mark.parametrize(
    ("operation", "fields", "answer"),
    [
        ("system_details", {}, SystemDetails),
        ("schedulers_list", {}, Schedulers),
        ("get_all_models", {}, Models),
        ("verify_model", {"model_id": "stable-diffusion-v1-5"}, Done),
    ],
)
def test_enterprise_companions(
    server: RunningServer, operation: str, fields: dict[str, Any], answer: type[Answer]
):
    assert answer.model_validate_json(enterprise(server, operation, **fields))


def encoded(width: int = 256, height: int = 256) -> str:
    file = BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("operation", "own"),
    [
        ("img2img", {"init_image": encoded(), "strength": 0.7}),
        ("inpaint", {"init_image": encoded(), "mask_image": encoded(), "strength": 0.7}),
        ("controlnet", {"init_image": encoded(), "controlnet_model": "canny", "auto_hint": "yes"}),
    ],
)
@pytest.mark.client("strict types", "Python", happy="img2img, inpaint, controlnet")
def test_the_siblings_of_text2img_answer_like_it(server: RunningServer, operation: str, own: dict[str, Any]):
    drawn = Success.model_validate_json(enterprise(server, operation, **TEXT2IMG, **own))
    assert Fetched.model_validate_json(enterprise(server, f"fetch/{drawn.id}")).output == drawn.output


@pytest.mark.client("strict types", "Python", happy="super_resolution, upload_image, nsfw_image_check")
def test_operations_on_pictures(server: RunningServer):
    uploaded = UploadedImage.model_validate_json(
        enterprise(server, "upload_image", base64_image=encoded(64, 64), image_type="png")
    )
    url = uploaded.image_url
    checked = Checked.model_validate_json(enterprise(server, "nsfw_image_check", init_image=url))
    assert len(checked.has_nsfw_concept) == 1
    enlarged = Enlarged.model_validate_json(enterprise(server, "super_resolution", url=url, scale=2))
    assert Image.open(BytesIO(HTTP.get(enlarged.output).content)).size == (128, 128)


@pytest.mark.parametrize(
    ("operation", "fields"), [("clear_queue", {}), ("update_server", {}), ("update", {}), ("clear_cache", {})]
)
def test_upkeep_of_the_server(server: RunningServer, operation: str, fields: dict[str, Any]):
    answer = Done.model_validate_json(enterprise(server, operation, server.admin_key, **fields))
    assert answer.message == answer.messege
