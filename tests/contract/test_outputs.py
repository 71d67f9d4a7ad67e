"""Stored files as a browser, a player, an interrupted download or a CDN asks for them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest
from PIL import Image

from tests.contract.parameters.stage import ENTERPRISE, Answer, Stage, opened
from tests.running_server import eventually

DRAWN = {"model_id": "drawings", "prompt": "a cat", "width": 256, "height": 256}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("outputs")) as stage:
        yield stage


@pytest.fixture(scope="module")
def url(stage: Stage) -> str:
    return stage.ask("text2img", **DRAWN)["output"][0]


@pytest.fixture(scope="module")
def whole(stage: Stage, url: str) -> Answer:
    return stage.client.get(url)


def get(stage: Stage, url: str, **headers: str) -> Answer:
    return stage.client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_an_output_is_named_as_the_documentation_names_it(stage: Stage) -> None:
    said = stage.ask("text2img", **DRAWN, samples=2)
    prefix = said["meta"]["file_prefix"]
    assert said["output"] == [f"http://testserver/generations/{prefix}-{index}.png" for index in range(2)]
    assert stage.ask("fetch", request_id=said["id"])["output"] == said["output"]
    text = stage.ask("text2img", **DRAWN, base64="yes")
    assert text["output"] == [f"http://testserver/generations/{text['meta']['file_prefix']}-0.base64"]


def test_every_dialect_gives_the_same_address(stage: Stage) -> None:
    body = {"prompt": "a cat", "img_width": 512, "img_height": 512, "samples": 2}
    several = stage.send("POST", "/v1/kandinsky2.2-txt2img", body)
    queued = stage.send("POST", "/v2/kandinsky2.2-txt2img", body).json()
    path = f"/v2/requests/{queued['request_id']}"
    images = eventually(lambda: stage.send("GET", path, {}).json().get("images"), every_s=0.002)
    uploaded = stage.ask("upload_image", base64_image=_picture())["image_url"]
    urls = [*json.loads(several.headers["x-output-urls"]), uploaded]
    urls += [image["url"] for image in images]
    for url in urls:
        assert url.startswith("http://testserver/generations/")
        assert stage.client.get(url).status_code == 200


def test_a_webhook_names_the_same_addresses_as_the_answer(stage: Stage) -> None:
    for more in ({}, {"base64": "yes"}, {"temp": "yes"}):
        asked = {**DRAWN, **more, "webhook": "http://127.0.0.1:9/receiver"}
        outcome = stage.outcome("POST", f"{ENTERPRISE}/text2img", asked)
        (announced,) = outcome.announced
        assert announced["output"] == outcome.answer.json()["output"]


def test_an_address_given_out_before_still_opens(stage: Stage, url: str, whole: Answer) -> None:
    earlier = url.replace("/generations/", "/outputs/")
    assert get(stage, earlier).content == whole.content
    assert stage.client.head(earlier).status_code == 200
    drawn = stage.ask("img2img", **DRAWN, init_image=earlier)
    assert drawn["status"] == "success", drawn


def test_a_whole_file_says_how_it_may_be_kept(whole: Answer) -> None:
    assert whole.status_code == 200
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.headers["etag"].startswith('"')
    assert parsedate_to_datetime(whole.headers["last-modified"])
    assert whole.headers["access-control-allow-origin"] == "*"
    directives = dict(part.strip().partition("=")[::2] for part in whole.headers["cache-control"].split(","))
    assert {"public", "immutable"} <= directives.keys()
    assert 7 * 86400 - 60 < int(directives["max-age"]) <= 7 * 86400


def test_a_temporary_file_is_not_kept_for_longer_than_it_lives(stage: Stage) -> None:
    url = stage.ask("text2img", **DRAWN, temp="yes")["output"][0]
    age = int(get(stage, url).headers["cache-control"].partition("max-age=")[2].partition(",")[0])
    assert 86400 - 60 < age <= 86400


def test_a_file_that_is_not_there_yet_is_not_remembered_as_missing(stage: Stage) -> None:
    missing = get(stage, "/generations/not-yet-0.png")
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store")


RANGES = [
    ("bytes=0-0", slice(0, 1)),
    ("bytes=2-5", slice(2, 6)),
    ("bytes=100-", slice(100, None)),
    ("bytes=-7", slice(-7, None)),
    ("bytes=0-", slice(0, None)),
    ("bytes=5-99999999", slice(5, None)),
    ("bytes=-99999999", slice(0, None)),
    ("bytes=3-" + "9" * 5000, slice(3, None)),
    ("Bytes = 1-2", slice(1, 3)),
    ("bytes=1-2,", slice(1, 3)),
]


@pytest.mark.parametrize(("range_", "part"), RANGES)
def test_a_range_is_answered_with_that_part(
    stage: Stage, url: str, whole: Answer, range_: str, part: slice
) -> None:
    answer = get(stage, url, range=range_)
    assert answer.status_code == 206
    assert answer.content == whole.content[part]
    start, stop, _ = part.indices(len(whole.content))
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole.content)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("range_", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_outside_of_the_file_is_refused_with_its_size(
    stage: Stage, url: str, whole: Answer, range_: str
) -> None:
    answer = get(stage, url, range=range_)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert "immutable" not in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "range_", ["bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "pages=1-2", "bytes=0-1,4-5", "x", "bytes=1--2"]
)
def test_what_is_no_single_range_is_answered_whole(
    stage: Stage, url: str, whole: Answer, range_: str
) -> None:
    answer = get(stage, url, range=range_)
    assert (answer.status_code, answer.content) == (200, whole.content)


def test_who_has_the_file_already_gets_none(stage: Stage, url: str, whole: Answer) -> None:
    tag, modified = whole.headers["etag"], whole.headers["last-modified"]
    for known in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        answer = get(stage, url, if_none_match=known)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert answer.headers["cache-control"].startswith("public, max-age=")
    assert get(stage, url, if_modified_since=modified).status_code == 304
    assert stage.client.head(url, headers={"if-none-match": tag}).status_code == 304


def test_who_has_another_file_gets_this_one(stage: Stage, url: str, whole: Answer) -> None:
    old = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert get(stage, url, if_none_match='"another"').content == whole.content
    assert get(stage, url, if_modified_since=old).content == whole.content
    assert get(stage, url, if_modified_since="yesterday").content == whole.content
    # A tag is the better witness: the date beside it is not asked.
    both = get(stage, url, if_none_match='"another"', if_modified_since=whole.headers["last-modified"])
    assert both.status_code == 200


def test_a_download_goes_on_only_where_the_file_is_still_the_same(
    stage: Stage, url: str, whole: Answer
) -> None:
    tag, modified = whole.headers["etag"], whole.headers["last-modified"]
    for same in (tag, modified):
        assert get(stage, url, range="bytes=2-5", if_range=same).status_code == 206
    for other in ('"another"', f"W/{tag}", "Mon, 01 Jan 2024 00:00:00 GMT", "nonsense"):
        answer = get(stage, url, range="bytes=2-5", if_range=other)
        assert (answer.status_code, answer.content) == (200, whole.content)
    assert get(stage, url, if_match='"another"').status_code == 412
    assert get(stage, url, if_unmodified_since="Mon, 01 Jan 2024 00:00:00 GMT").status_code == 412
    assert get(stage, url, if_match=tag, if_unmodified_since=modified).status_code == 200


def test_head_says_what_get_would_and_sends_nothing(stage: Stage, url: str, whole: Answer) -> None:
    answer = stage.client.head(url, headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "last-modified", "accept-ranges"):
        assert answer.headers[name] == whole.headers[name]


def test_a_file_of_no_bytes_is_answered_too(stage: Stage) -> None:
    stage.run(stage.services.storage.put, "empty.png", b"", "image/png")
    answer = get(stage, "/generations/empty.png")
    assert (answer.status_code, answer.content) == (200, b"")
    assert get(stage, "/generations/empty.png", range="bytes=0-").status_code == 416
    assert get(stage, "/generations/empty.png", range="bytes=-5").status_code == 200


def test_the_documented_answer_shows_the_documented_address(stage: Stage) -> None:
    document = stage.client.get("/openapi.json").json()
    assert "127.0.0.1:8000/outputs/" not in json.dumps(document)
    assert "/generations/{name}" in document["paths"]
    assert f"{ENTERPRISE}/text2img" in document["paths"]


def _picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
