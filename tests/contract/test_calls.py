"""What every call may rely on, whatever it asks for: paths, verbs, CORS, the dialect of refusals, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from tests.contract.parameters.stage import ENTERPRISE, Answer, Stage, opened

KEYED = ("x-api-key", "key", "bearer")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("calls")) as stage:
        yield stage


def credentials(stage: Stage, where: str) -> dict[str, str]:
    return {"authorization": f"Bearer {stage.key}"} if where == "bearer" else {where: stage.key}


def raw(stage: Stage, method: str, target: bytes, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request line as it is, which clients would tidy up.

    The path is decoded as the HTTP server does it.
    """
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(target.decode("ascii")),
        "raw_path": target,
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "server": ("testserver", 80),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    stage.run(stage.client.app, scope, receive, send)
    start = sent[0]
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


ENTERPRISE_PATHS = [
    f"{ENTERPRISE}/no_such_operation",
    "/api/v1/enterprise",
    "/api/v1/nothing",
    "/api/v6/images/nothing",
    "/api/v9/images/text2img",
    "/api/anything/at/all",
    "/api",
]


@pytest.fixture(params=["legacy", "standard"])
def setting(request: pytest.FixtureRequest, stage: Stage) -> Iterator[str]:
    """Both settings of enterprise's errors."""
    before = stage.services.settings.enterprise_errors
    object.__setattr__(stage.services.settings, "enterprise_errors", request.param)
    yield request.param
    object.__setattr__(stage.services.settings, "enterprise_errors", before)


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("path", ENTERPRISE_PATHS)
def test_an_unknown_operation_is_404_in_its_dialect(stage: Stage, setting: str, verb: str, path: str) -> None:
    answer = stage.client.request(verb, path)
    assert answer.status_code == 404
    assert answer.json()["status"] == "error"
    assert answer.json()["message"] == answer.json()["messege"] == "The requested URL does not exist"


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
@pytest.mark.parametrize("operation", ["text2img", "images/text2img", "fetch/7", "load_model"])
def test_a_wrong_verb_is_405_in_its_dialect(stage: Stage, setting: str, verb: str, operation: str) -> None:
    answer = stage.client.request(verb, f"{ENTERPRISE}/{operation}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if verb != "HEAD":
        assert answer.json()["message"] == answer.json()["messege"] == "Method not allowed"
        assert answer.json()["status"] == "error"


def test_other_errors_keep_the_status_of_the_setting(stage: Stage, setting: str) -> None:
    answer = stage.send("POST", f"{ENTERPRISE}/verify_model", {"model_id": "nothing"})
    assert answer.status_code == (200 if setting == "legacy" else 404)
    assert answer.json()["message"] == "Model id not found"


@pytest.mark.parametrize("where", KEYED)
@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("POST", "/v1/no-such-slug", 404),
        ("POST", "/v2/no-such-slug", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/kolors", 405),
        ("DELETE", "/v1/get-user-credits", 405),
        ("POST", f"{ENTERPRISE}/nothing", 404),
        ("GET", f"{ENTERPRISE}/text2img", 405),
    ],
)
def test_a_caller_who_is_known_reads_its_credits_there_too(
    stage: Stage, where: str, verb: str, path: str, status: int
) -> None:
    answer = stage.client.request(verb, path, headers=credentials(stage, where))
    assert answer.status_code == status
    assert float(answer.headers["x-remaining-credits"]) > 0


def test_the_key_of_a_body_is_recognised_there_too(stage: Stage) -> None:
    answer = stage.client.post(f"{ENTERPRISE}/nothing", json={"key": stage.key})
    assert float(answer.headers["x-remaining-credits"]) > 0
    form = stage.client.post(f"{ENTERPRISE}/nothing", data={"key": stage.key})
    assert float(form.headers["x-remaining-credits"]) > 0


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Basic abc"}])
def test_nobody_else_reads_credits(stage: Stage, headers: dict[str, str]) -> None:
    for verb, path in (("POST", "/v1/nothing"), ("GET", "/v1/kolors"), ("GET", f"{ENTERPRISE}/text2img")):
        answer = stage.client.request(verb, path, headers=headers)
        assert answer.status_code in (404, 405)
        assert "x-remaining-credits" not in answer.headers


def test_a_body_that_cannot_be_read_is_answered_with_the_credits_of_its_header(stage: Stage) -> None:
    answer = stage.client.post(
        f"{ENTERPRISE}/text2img", content=b"{", headers={"key": stage.key, "content-type": "application/json"}
    )
    assert "JSON" in answer.json()["messege"]
    assert float(answer.headers["x-remaining-credits"]) > 0


def test_the_text_about_a_wrong_key_stands_under_its_right_name_alone(stage: Stage) -> None:
    wrong = stage.client.post(f"{ENTERPRISE}/system_details", json={"key": "wrong"}).json()
    assert (wrong["message"], "messege" in wrong) == ("Invalid Api Key", False)
    missing = stage.client.post(f"{ENTERPRISE}/system_details", json={}).json()
    assert missing["message"] == missing["messege"] == {"key": ["The key field is required."]}


@pytest.mark.parametrize(
    "target",
    [b"//v1/kolors", b"/v1//kolors", b"///v1///kolors//", b"/v1/kolors/", b"/v1/kolors//", b"//v2/kolors"],
)
def test_needless_slashes_lead_to_the_page(stage: Stage, target: bytes) -> None:
    status, headers = raw(stage, "POST", target, x_api_key=stage.key)
    assert status == 400  # the page's own word on an empty body
    assert "location" not in headers


@pytest.mark.parametrize("path", [f"/{ENTERPRISE}/", "/api//v1//enterprise//"])
def test_needless_slashes_lead_to_an_operation(stage: Stage, path: str) -> None:
    status, headers = raw(stage, "POST", f"{path}system_details/".encode(), key=stage.key)
    assert status == 200
    assert "x-remaining-credits" in headers


@pytest.mark.parametrize(
    "target",
    [
        b"/v1%2Fkolors",
        b"/v1/..%2Fv1/kolors",
        b"/v1/../v1/kolors",
        b"/v1/./kolors",
        b"/V1/kolors",
        b"/v1/Kolors",
        b"/v1\\kolors",
        b"/v1%5Ckolors",
        b"/v1/kolors%00",
    ],
)
def test_a_path_is_one_page_s_only_as_it_is_documented(stage: Stage, target: bytes) -> None:
    assert raw(stage, "POST", target, x_api_key=stage.key)[0] == 404


@pytest.mark.parametrize("below", [b"/generations/", b"/outputs/"])
@pytest.mark.parametrize(
    "name",
    [
        b"..%2f..%2funderstudy.db",
        b"..%2F..%2Funderstudy.db",
        b"../../understudy.db",
        b"%2e%2e/%2e%2e/understudy.db",
        b"%2e%2e%2funderstudy.db",
        b"..%252funderstudy.db",
        b"//etc/passwd",
        b"%2Fetc%2Fpasswd",
        b"..%5cunderstudy.db",
        b"%00",
        b".",
        b"",
    ],
)
def test_no_path_leads_out_of_the_stored_files(stage: Stage, below: bytes, name: bytes) -> None:
    assert raw(stage, "GET", below + name)[0] == 404


ORIGIN = {"origin": "https://app.example"}


def preflight(stage: Stage, path: str, **headers: str) -> Answer:
    asked = {"access-control-request-method": "POST", **ORIGIN, **headers}
    return stage.client.options(path, headers=asked)


@pytest.mark.parametrize("path", ["/v1/kolors", f"{ENTERPRISE}/text2img", "/generations/a.png", "/nothing"])
def test_a_page_of_the_public_network_may_call_a_private_one(stage: Stage, path: str) -> None:
    asked = {"access-control-request-private-network": "true"}
    answer = preflight(stage, path, **asked)
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")
    assert "access-control-allow-private-network" not in preflight(stage, path).headers


@pytest.mark.parametrize(
    "name", ["x-api-key", "key", "authorization", "content-type", "idempotency-key", "range"]
)
def test_a_preflight_allows_what_clients_send(stage: Stage, name: str) -> None:
    answer = preflight(stage, "/v1/kolors", **{"access-control-request-headers": name})
    assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (200, name)


def test_scripts_may_read_every_header_of_the_accounting(stage: Stage) -> None:
    for path in ("/v1/get-user-credits", "/v1/nothing", f"{ENTERPRISE}/nothing"):
        exposed = stage.client.get(path, headers=ORIGIN).headers["access-control-expose-headers"]
        assert {
            "x-remaining-credits", "x-cost", "x-seed-value", "x-generation-time", "x-request-id",
            "x-output-urls", "x-output-metadata", "x-warnings", "retry-after", "x-rate-limit-reset-at-utc",
            "etag", "content-range",
        } <= {*exposed.split(", ")}  # fmt: skip


def test_options_without_an_origin_says_the_verbs(stage: Stage) -> None:
    for path, verbs in (
        ("/v1/kolors", "POST"),
        ("/readyz", "GET, HEAD"),
        ("/generations/a.png", "GET, HEAD"),
    ):
        answer = stage.client.options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, verbs, b"")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_monitors_may_ask_with_head(stage: Stage, path: str) -> None:
    got, asked = stage.client.get(path), stage.client.head(path)
    assert (got.status_code, asked.status_code, asked.content) == (200, 200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert stage.client.post(path).headers["allow"] == "GET, HEAD"


def test_head_on_readyz_says_that_nothing_can_be_drawn(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.services.dispatch, "readiness", lambda: "the device is lost")
    asked = stage.client.head("/readyz")
    assert (asked.status_code, asked.content) == (503, b"")
    assert asked.headers["retry-after"] == "5"
    assert stage.client.head("/livez").status_code == 200


def test_who_hangs_up_before_an_unknown_page_is_no_failure(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http", "method": "POST", "path": f"{ENTERPRISE}/nothing", "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    stage.run(stage.client.app, scope, receive, send)
    assert sent[0]["status"] == 404
    assert caplog.records == []
