"""Every answer and error of the segmind dialect: the whole application around an engine of flat colours."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipelines import errors as drawing_errors
from server.engines.engine import EngineState
from tests.contract.segmind_application.application import (
    FURTHER_SLUGS,
    SLUGS,
    UNKNOWN_ID,
    World,
    body,
    credits_of,
    opened,
    picture_of,
    png,
    wait_for_end,
)


@pytest.mark.parametrize("slug", SLUGS)
def test_the_body_of_success_is_the_picture(client: TestClient, slug: str) -> None:
    answer = client.post(f"/v1/{slug}", json=body(slug), headers={"accept": "application/json"})
    picture = picture_of(answer)
    expected = {"sd3-med-pose": (1280, 832)}.get(slug, (512, 512))
    assert (picture.format, picture.size) == ("WEBP" if slug == "kolors" else "JPEG", expected)
    assert answer.headers["content-type"] == ("image/webp" if slug == "kolors" else "image/jpeg")


@pytest.mark.parametrize(
    ("output_format", "content_type"),
    [
        ("webp", "image/webp"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
    ],
)
def test_kolors_answers_in_the_asked_format(
    client: TestClient, output_format: str, content_type: str
) -> None:
    answer = client.post("/v1/kolors", json=body("kolors", output_format=output_format))
    assert answer.headers["content-type"] == content_type
    assert Image.MIME[picture_of(answer).format or ""] == content_type


def test_success_tells_cost_seed_size_time_and_what_is_left(world: World, client: TestClient) -> None:
    before = credits_of(client, world.rich)
    answer = client.post(
        "/v1/kandinsky2.2-txt2img", json=body("kandinsky2.2-txt2img", num_inference_steps=40)
    )
    assert answer.headers["x-cost"] == "0.02"
    assert float(answer.headers["x-remaining-credits"]) == pytest.approx(before - 0.02, abs=1e-6)
    assert credits_of(client, world.rich) == pytest.approx(before - 0.02, abs=1e-6)
    assert answer.headers["x-seed-value"] == "7"
    assert float(answer.headers["x-generation-time"]) >= 0
    assert json.loads(answer.headers["x-output-metadata"]) == {
        "height": 512,
        "width": 512,
        "samples": 1,
        "evaluations": 41,
    }
    assert client.get(f"/v2/requests/{answer.headers['x-request-id']}").json()["status"] == "COMPLETED"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_answer_already_counts_its_own_price(world: World, client: TestClient, version: str) -> None:
    before = credits_of(client, world.other)
    answer = client.post(
        f"/{version}/kandinsky2.2-txt2img",
        json=body("kandinsky2.2-txt2img"),
        headers={"x-api-key": world.other},
    )
    assert answer.headers["x-remaining-credits"] == str(round(before - 0.01, 3))
    assert credits_of(client, world.other) == round(before - 0.01, 3)


def test_the_small_account_reads_its_exact_balance_from_the_header(world: World, client: TestClient) -> None:
    answer = client.get("/v1/get-user-credits", headers={"x-api-key": world.poor})
    assert answer.json() == {"credits": 0.015, "free-credits": 0.0}
    assert answer.headers["x-remaining-credits"] == "0.015"


def test_a_price_of_the_settings_replaces_the_page_s_own(client: TestClient) -> None:
    assert client.post("/v1/kolors", json=body("kolors", steps=1)).headers["x-cost"] == "0.04"


def test_a_random_seed_is_reported(world: World, client: TestClient) -> None:
    answer = client.post("/v1/kolors", json=body("kolors", seed=-1, number_of_images=2))
    drawn = world.engine.requests[0].seeds
    assert answer.headers["x-seed-value"] == f"{drawn[0]},{drawn[1]}"


@pytest.mark.parametrize("slug", SLUGS)
def test_base64_answers_json_with_one_png(client: TestClient, slug: str) -> None:
    answer = client.post(f"/v1/{slug}", json=body(slug, base64=True))
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert isinstance(said.pop("infer_time"), float)
    picture = Image.open(BytesIO(base64.b64decode(said.pop("image"), validate=True)))
    assert (picture.format, picture.getpixel((0, 0))) == ("PNG", (7, 9, 99))
    assert said == {"status": "Success", "outputs": 1, "image_format": "png"}


WARNINGS = (
    'prompt: CLIP reads only its first 77 tokens; what begins with "猫\r\n: é" is left out',
    "another",
)


@pytest.mark.parametrize("slug", SLUGS)
def test_what_the_engine_warns_of_is_told_in_a_header_and_in_json(
    world: World, client: TestClient, slug: str
) -> None:
    world.engine.warnings = WARNINGS
    raw = client.post(f"/v1/{slug}", json=body(slug))
    coded = client.post(f"/v1/{slug}", json=body(slug, base64=True))
    for answer in (raw, coded):
        header = answer.headers["x-warnings"]
        assert header.isascii()
        assert header.isprintable()
        assert json.loads(header) == [*WARNINGS]
    assert coded.json()["warnings"] == [*WARNINGS]
    assert picture_of(raw).size


def test_what_the_engine_warns_of_is_told_with_the_result_of_a_queued_request(
    world: World, client: TestClient
) -> None:
    world.engine.warnings = WARNINGS
    submitted = client.post("/v2/kolors", json=body("kolors"))
    assert "x-warnings" not in submitted.headers
    done = wait_for_end(client, submitted.json()["status_url"])
    for answer in (done, client.get(submitted.json()["response_url"])):
        assert answer.json()["warnings"] == json.loads(answer.headers["x-warnings"]) == [*WARNINGS]


def test_without_warnings_answers_are_as_the_vendor_s(client: TestClient) -> None:
    raw = client.post("/v1/kolors", json=body("kolors"))
    coded = client.post("/v1/kolors", json=body("kolors", base64=True))
    result = client.get(f"/v2/requests/{raw.headers['x-request-id']}")
    assert "x-warnings" not in {*raw.headers, *coded.headers, *result.headers}
    assert "warnings" not in {*coded.json(), *result.json()}


UNGUIDED = ["negative_prompt: has no effect, because guidance begins above 1"]


@pytest.mark.parametrize(
    ("slug", "sent", "warned"),
    [
        ("kolors", {"cfg": 1, "negative_prompt": "rain"}, UNGUIDED),
        ("kolors", {"cfg": 0, "negative_prompt": "rain"}, UNGUIDED),
        ("kolors", {"cfg": 1.1, "negative_prompt": "rain"}, []),
        ("kolors", {"cfg": 1}, []),
        ("sd1.5-img2img", {"guidance_scale": 1, "negative_prompt": "rain"}, UNGUIDED),
        ("sd1.5-img2img", {"guidance_scale": 1}, []),
        ("sd3-med-pose", {"guidance_scale": 1, "negative_prompt": "rain"}, UNGUIDED),
        ("sd3-med-pose", {"guidance_scale": 1}, []),
        ("sd3-med-pose", {"guidance_scale": 1, "negative_prompt": "rain", "sampler": "euler_pp"}, []),
        ("kandinsky2.2-txt2img", {"negative_prompt": "rain", "scheduler": "DDIM"}, []),
        (
            "kolors",
            {"output_format": "png", "output_quality": 80},
            ["output_quality: has no effect on a PNG"],
        ),
        ("kolors", {"output_format": "png"}, []),
        ("kolors", {"output_format": "jpg", "output_quality": 80}, []),
        ("kolors", {"base64": True, "output_format": "png"}, []),
        (
            "kolors",
            {"base64": True, "output_format": "webp"},
            ["output_format: has no effect beside base64, whose pictures are PNGs"],
        ),
    ],
)
def test_what_a_page_knows_to_be_in_vain_is_warned_of_at_once_and_before_the_engine_s(
    world: World, client: TestClient, slug: str, sent: dict[str, object], warned: list[str]
) -> None:
    submitted = client.post(f"/v2/{slug}", json=body(slug, **sent))
    assert submitted.json().get("warnings", []) == warned
    world.engine.warnings = ("another",)
    answer = client.post(f"/v1/{slug}", json=body(slug, **sent))
    assert json.loads(answer.headers["x-warnings"]) == [*warned, "another"]


def test_a_replayed_answer_warns_again(world: World, client: TestClient) -> None:
    world.engine.warnings = WARNINGS
    headers = {"idempotency-key": "warned"}
    first = client.post("/v1/kolors", json=body("kolors"), headers=headers)
    world.engine.warnings = ()
    second = client.post("/v1/kolors", json=body("kolors"), headers=headers)
    assert first.headers["x-warnings"] == second.headers["x-warnings"]
    assert len(world.engine.requests) == 1


@pytest.mark.parametrize("slug", ["kolors", "sd1.5-img2img", "sdxl1.0-txt2img"])
def test_syntax_of_other_programs_is_told_and_its_tags_are_not_drawn(
    world: World, client: TestClient, slug: str
) -> None:
    sent = body(slug, prompt="a fox <lora:pencil:0.8> BREAK snow", base64=True)
    told = [
        "prompt: <lora:pencil:0.8> had no effect: this page has no LoRAs or hypernetworks",
        "prompt: BREAK is read as a word and has no meaning here",
    ]
    headers = {"idempotency-key": f"pasted-{slug}"}
    for answer in [client.post(f"/v1/{slug}", json=sent, headers=headers) for _ in range(2)]:
        assert answer.json()["warnings"] == json.loads(answer.headers["x-warnings"])
        assert {*told} <= {*answer.json()["warnings"]}
    (drawn,) = world.engine.requests
    assert drawn.prompt == "a fox BREAK snow"


def test_base64_of_several_is_a_list_in_the_order_of_the_seeds(client: TestClient) -> None:
    answer = client.post("/v1/sd1.5-img2img", json=body("sd1.5-img2img", base64="yes", samples="3"))
    said = answer.json()
    assert said["outputs"] == 3
    pictures = [Image.open(BytesIO(base64.b64decode(text))) for text in said["image"]]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(7, 9, 99), (8, 9, 99), (9, 9, 99)]


def test_of_several_raw_pictures_the_first_is_the_body_and_all_are_listed(client: TestClient) -> None:
    answer = client.post("/v1/kolors", json=body("kolors", number_of_images=3, output_format="png"))
    assert picture_of(answer).getpixel((0, 0)) == (7, 9, 99)
    urls = json.loads(answer.headers["x-output-urls"])
    assert all(url.startswith("http://testserver/generations/") for url in urls)
    assert [picture_of(opened(client, url)).getpixel((0, 0)) for url in urls] == [
        (7, 9, 99),
        (8, 9, 99),
        (9, 9, 99),
    ]
    assert opened(client, urls[0]).content == answer.content


KEYED = [
    *[("POST", f"/{version}/{slug}") for version in ("v1", "v2") for slug in (*SLUGS, *FURTHER_SLUGS)],
    ("GET", "/v1/get-user-credits"),
    ("GET", f"/v2/requests/{UNKNOWN_ID}"),
    ("GET", f"/v1/requests/{UNKNOWN_ID}"),
    ("GET", f"/v2/requests/{UNKNOWN_ID}/status"),
    ("POST", "/upload-asset"),
]


@pytest.mark.parametrize(("verb", "path"), KEYED)
def test_without_a_valid_key_nothing_is_answered(client: TestClient, verb: str, path: str) -> None:
    missing = client.request(verb, path, headers={"x-api-key": ""})
    assert (missing.status_code, missing.json()) == (
        401,
        {"error": "Missing Authorization or x-api-key in header"},
    )
    wrong = client.request(verb, path, headers={"x-api-key": "SG_wrong"})
    assert (wrong.status_code, wrong.json()) == (
        401,
        {"error": "Unauthorized. API key is invalid or may have expired"},
    )


def test_the_key_may_travel_as_a_bearer_token(world: World, client: TestClient) -> None:
    headers = {"x-api-key": "", "authorization": f"Bearer {world.poor}"}
    assert client.get("/v1/get-user-credits", headers=headers).json()["credits"] == 0.015


@pytest.mark.parametrize(
    ("verb", "path"), [("POST", "/v1/sdxl9"), ("POST", "/v2/sdxl9"), ("GET", "/v1/nothing"), ("GET", "/nope")]
)
def test_an_unknown_slug_is_not_found_in_json(client: TestClient, verb: str, path: str) -> None:
    answer = client.request(verb, path, json={} if verb == "POST" else None)
    assert (answer.status_code, answer.json()) == (404, {"error": "The requested URL does not exist"})


@pytest.mark.parametrize(("verb", "path"), [
    ("GET", "/v1/kolors"), ("PUT", "/v1/kolors"), ("DELETE", "/v2/kolors"), ("POST", "/v1/get-user-credits"),
    ("GET", "/upload-asset"), ("POST", f"/v2/requests/{UNKNOWN_ID}"),
])  # fmt: skip
def test_a_wrong_verb_is_refused_in_json(client: TestClient, verb: str, path: str) -> None:
    answer = client.request(verb, path)
    assert (answer.status_code, answer.json()) == (405, {"error": "Method not allowed"})
    assert answer.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize("path", ["/v2/requests/{}", "/v1/requests/{}", "/v2/requests/{}/status"])
@pytest.mark.parametrize("request_id", [UNKNOWN_ID, "7", "x'--"])
def test_an_unknown_request_is_not_found(client: TestClient, path: str, request_id: str) -> None:
    answer = client.get(path.format(request_id))
    assert (answer.status_code, answer.json()) == (404, {"error": f"Request {request_id} not found"})


def test_a_request_of_another_account_is_not_found(world: World, client: TestClient) -> None:
    request_id = client.post("/v1/kolors", json=body("kolors")).headers["x-request-id"]
    answer = client.get(f"/v2/requests/{request_id}", headers={"x-api-key": world.other})
    assert (answer.status_code, answer.json()) == (404, {"error": f"Request {request_id} not found"})


REFUSED = [
    (b"{", "application/json", 400, "body: must be valid JSON"),
    (b"[]", "application/json", 400, "body: must be a JSON object"),
    (b"hello", "text/plain", 406, "Invalid content type"),
    (b"hello", None, 406, "Invalid content type"),
    (b"x", "multipart/form-data", 400, "body: must be valid multipart/form-data"),
    (b"{}", "application/json", 400, "prompt: field is required"),
    (b'{"prompt": 5}', "application/json", 400, "prompt: must be text"),
    (b'{"prompt": "a", "samples": 5}', "application/json", 400, "samples: must be between 1 and 4"),
    (b'{"prompt": "a", "samples": "x"}', "application/json", 400, "samples: must be a whole number"),
    (b'{"prompt": "a", "base64": "x"}', None, 400, "base64: must be true or false"),
    (b'{"prompt": "\\ud800"}', "application/json", 400, "prompt: must be valid Unicode"),
    (b'{"prompt": "\\u0000"}', "application/json", 400, "prompt: must not contain NUL characters"),
    (
        b'{"prompt": "a", "img_width": 500}',
        "application/json",
        406,
        "img_width: must be one of 512, 576, 640, 704, 768, 832, 896, 960, 1024",
    ),
]


@pytest.mark.parametrize(("content", "content_type", "status", "error"), REFUSED)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_body_that_cannot_be_drawn_is_refused_and_costs_nothing(
    world: World,
    client: TestClient,
    version: str,
    content: bytes,
    content_type: str | None,
    status: int,
    error: str,
) -> None:
    before = credits_of(client, world.rich)
    headers = {"content-type": content_type} if content_type else {}
    answer = client.post(f"/{version}/kandinsky2.2-txt2img", content=content, headers=headers)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert credits_of(client, world.rich) == before
    assert world.engine.requests == []


def test_an_account_without_enough_credits_is_told_both_sums(world: World, client: TestClient) -> None:
    answer = client.post(
        "/v1/kandinsky2.2-txt2img",
        json=body("kandinsky2.2-txt2img", samples=2),
        headers={"x-api-key": world.poor},
    )
    assert (answer.status_code, answer.json()) == (
        406,
        {"error": "Insufficient credits: balance 0.015, required 0.02"},
    )
    assert credits_of(client, world.poor) == 0.015


def test_a_body_over_the_limit_is_too_large(client: TestClient) -> None:
    answer = client.post("/v1/kolors", json={"prompt": "a", "junk": "x" * 3_000_001})
    assert (answer.status_code, list(answer.json())) == (413, ["error"])


FAILURES = [
    (drawing_errors.AnnotatorMissing("image", "is no skeleton"), 400, "image: is no skeleton"),
    (drawing_errors.PoseNotFound("image", "nobody was found"), 400, "image: nobody was found"),
    (drawing_errors.OutOfMemory("does not fit"), 503, "does not fit"),
    (drawing_errors.DrawingFailed("secret /path"), 500, "Internal server error. Please try again."),
]


@pytest.mark.parametrize(("failure", "status", "error"), FAILURES)
def test_a_failure_while_drawing_is_told_and_costs_nothing(
    world: World, client: TestClient, failure: Exception, status: int, error: str
) -> None:
    before = credits_of(client, world.rich)
    world.engine.failure = failure
    answer = client.post("/v1/kolors", json=body("kolors"))
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert credits_of(client, world.rich) == before
    assert ("retry-after" in answer.headers) is (status == 503)
    if status == 500:
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_fault_of_the_server_itself_is_told_in_a_fixed_text(world: World, client: TestClient) -> None:
    world.engine.failure = RuntimeError("secret /path")
    answer = client.post("/v1/kolors", json=body("kolors"))
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "Internal server error. Please try again.",
        "request_id": answer.headers["x-request-id"],
    }


def test_without_an_engine_nothing_is_drawn_and_readyz_says_why(world: World, client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    world.engine.state, world.engine.reason = EngineState.failed, "the device was lost"
    answer = client.post("/v1/kolors", json=body("kolors"))
    assert answer.status_code == 503
    assert "the device was lost" in answer.json()["error"]
    assert int(answer.headers["retry-after"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert "the device was lost" in ready.json()["reason"]
    assert client.get("/livez").json() == {"status": "ok"}


def test_a_queued_request_is_followed_to_its_picture(world: World, client: TestClient) -> None:
    world.call(world.engine.gate.clear)
    try:
        submitted = client.post("/v2/kolors", json=body("kolors", number_of_images=2)).json()
        request_id = submitted["request_id"]
        response_url = f"http://testserver/v2/requests/{request_id}"
        assert submitted == {
            "request_id": request_id,
            "status": "QUEUED",
            "poll_url": f"{response_url}/status",
            "status_url": f"{response_url}/status",
            "response_url": response_url,
        }
        waiting = client.get(submitted["status_url"]).json()
        assert waiting.pop("status") in ("QUEUED", "PROCESSING")
        assert waiting == {
            "request_id": request_id,
            "status_url": f"{response_url}/status",
            "response_url": response_url,
            "metrics": {},
        }
        assert client.get(response_url).json()["status"] in ("QUEUED", "PROCESSING")
    finally:
        world.call(world.engine.gate.set)
    done = wait_for_end(client, submitted["status_url"])
    assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
    metrics = done.json()["metrics"]
    assert set(metrics) == {
        "inference_time",
        "queue_time",
        "total_time",
        "cost",
        "remaining_credits",
        "evaluations",
    }
    assert metrics["cost"] == 2.0
    assert metrics["evaluations"] == 82
    assert metrics["remaining_credits"] == credits_of(client, world.rich)
    result = client.get(response_url).json()
    assert client.get(f"/v1/requests/{request_id}").json() == result
    assert result["metrics"] == metrics
    assert result["output"] == result["images"][0]["url"]
    assert (result["seed"], result["prompt"], result["status"]) == (7, "a cat", "COMPLETED")
    assert result["request_id"] == request_id
    assert len(result["images"]) == 2
    for image in result["images"]:
        stored = opened(client, image["url"])
        assert (stored.headers["content-type"], len(stored.content)) == (
            image["content_type"],
            image["file_size"],
        )
        assert image["url"].endswith(f"/generations/{image['file_name']}")


def test_a_queued_request_that_fails_says_so_with_422_and_costs_nothing(
    world: World, client: TestClient
) -> None:
    before = credits_of(client, world.rich)
    world.engine.failure = drawing_errors.AnnotatorMissing("image", "is no skeleton")
    submitted = client.post("/v2/sd3-med-pose", json=body("sd3-med-pose")).json()
    failed = wait_for_end(client, submitted["status_url"])
    assert failed.status_code == 422
    assert (failed.json()["status"], failed.json()["error"]) == ("FAILED", "image: is no skeleton")
    result = client.get(submitted["response_url"])
    assert (result.status_code, result.json()["status"]) == (422, "FAILED")
    assert credits_of(client, world.rich) == before


def test_a_full_queue_says_when_to_come_back(world: World, client: TestClient) -> None:
    world.call(world.engine.gate.clear)
    try:
        answers = [client.post("/v2/kolors", json=body("kolors", width=2048, height=2048)) for _ in range(4)]
    finally:
        world.call(world.engine.gate.set)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.json() == {"error": "rate_limit_exceeded"}
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-rate-limit-reset-at-utc"].endswith("Z")
    for answer in answers[:3]:
        assert wait_for_end(client, answer.json()["status_url"]).status_code == 200


@pytest.mark.parametrize("slug", SLUGS)
def test_a_repeated_idempotency_key_replays_although_the_seed_is_random(
    world: World, client: TestClient, slug: str
) -> None:
    headers = {"idempotency-key": f"again {slug}"}
    said = body(slug, seed=-1)
    first = client.post(f"/v1/{slug}", json=said, headers=headers)
    before = credits_of(client, world.rich)
    second = client.post(f"/v1/{slug}", json={**said, "unknown": 1}, headers=headers)
    assert second.status_code == 200
    assert second.content == first.content
    assert second.headers["x-request-id"] == first.headers["x-request-id"]
    assert len(world.engine.requests) == 1
    assert credits_of(client, world.rich) == before
    other = client.post(f"/v1/{slug}", json={**said, "prompt": "a dog"}, headers=headers)
    assert (other.status_code, other.json()) == (
        409,
        {"error": "Idempotency-Key was used before with another body"},
    )


def test_another_picture_is_another_body(client: TestClient) -> None:
    headers = {"idempotency-key": "pictures"}
    data = {"prompt": "a cat"}
    first = client.post("/v1/sd1.5-img2img", data=data, files={"image": png()}, headers=headers)
    again = client.post("/v1/sd1.5-img2img", data=data, files={"image": png()}, headers=headers)
    other = client.post("/v1/sd1.5-img2img", data=data, files={"image": png(97)}, headers=headers)
    assert [answer.status_code for answer in (first, again, other)] == [200, 200, 409]


def test_an_idempotency_key_is_bounded_in_length(client: TestClient) -> None:
    answer = client.post("/v1/kolors", json=body("kolors"), headers={"idempotency-key": "x" * 256})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "Idempotency-Key: must be at most 255 characters long"},
    )


def test_a_caller_who_hangs_up_in_the_middle_of_the_body_is_no_failure(
    world: World, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    headers = [(b"x-api-key", world.rich.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/kolors", "query_string": b"", "headers": headers}
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    world.call(client.app, scope, receive, send)
    assert sent[0]["status"] == 499
    assert caplog.records == []
    assert world.engine.requests == []


def test_browsers_may_call_and_read_the_accounting(client: TestClient) -> None:
    preflight = client.options(
        "/v1/kolors",
        headers={
            "origin": "https://example.com",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key,content-type",
        },
    )
    assert preflight.status_code == 200
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    answer = client.post("/v1/kolors", json=body("kolors"), headers={"origin": "https://example.com"})
    assert "x-remaining-credits" in answer.headers["access-control-expose-headers"]
    assert "x-warnings" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("slug", [*SLUGS, *FURTHER_SLUGS])
def test_the_documentation_shows_every_encoding_limits_and_answers(client: TestClient, slug: str) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for version in ("v1", "v2"):
        operation = paths[f"/{version}/{slug}"]["post"]
        content = operation["requestBody"]["content"]
        assert set(content) == {
            "application/json",
            "multipart/form-data",
            "application/x-www-form-urlencoded",
        }
        required = content["application/json"]["schema"]["required"]
        assert {*required} <= {*content["application/json"]["example"]}
        assert [parameter["name"] for parameter in operation["parameters"]] == ["Idempotency-Key"]
        assert ("prompt" in required) is (slug != "esrgan")
        for name in {"image", "mask"} & {*required}:
            part = content["multipart/form-data"]["schema"]["properties"][name]
            assert part["format"] == "binary"
        assert "`x-warnings`" in operation["description"]
        assert any(
            word in operation["description"] for word in ("The vendor", "the vendor's page", "Clients")
        )
        assert {"200", "400", "401", "406", "413", "429", "500", "503"} <= set(operation["responses"])
    assert client.get("/docs").status_code == 200


def test_the_documentation_shows_what_the_other_pages_take_and_answer(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/upload-asset"]["post"]["requestBody"]
    assert body["required"]
    assert body["content"]["application/json"]["example"]["data_urls"]
    for path, status in (("status", "PROCESSING"), ("", "COMPLETED")):
        answers = paths["/v2/requests/{request_id}" + (f"/{path}" if path else "")]["get"]["responses"]
        assert answers["200"]["content"]["application/json"]["example"]["status"] == status
    assert [parameter["name"] for parameter in paths["/generations/{name}"]["get"]["parameters"]] == ["name"]
    assert "422" not in paths["/generations/{name}"]["get"]["responses"]
