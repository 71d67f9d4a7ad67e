"""Bodies of both dialects as they arrive: forms, charsets, marks, compression, keys with blanks."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from PIL import Image

from tests.contract.parameters.stage import ENTERPRISE, Answer, Stage, opened

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
SAID = "un cercle très bleu"

DIALECTS = ["enterprise", "segmind"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("bodies")) as stage:
        yield stage


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


def post(stage: Stage, dialect: str, content: bytes, content_type: str | None, **headers: str) -> Answer:
    """A call of a page that draws from a prompt, in either dialect, with the key in a header."""
    path = f"{ENTERPRISE}/text2img" if dialect == "enterprise" else "/v1/kandinsky2.2-txt2img"
    named = {} if content_type is None else {"content-type": content_type}
    return stage.client.post(path, content=content, headers={"x-api-key": stage.key, **named, **headers})


def fields(dialect: str, **more: object) -> dict[str, Any]:
    """What a picture needs beside its prompt."""
    if dialect == "enterprise":
        own = {"model_id": "drawings", "width": 256, "height": 256, "enhance_prompt": "no"}
    else:
        own = {"img_width": 512, "img_height": 512}
    return {**own, **more}


def prompt_drawn(stage: Stage, answer: Answer) -> str:
    """The prompt that the engine was asked for by that call, which has succeeded."""
    assert answer.status_code == 200, answer.text
    assert '"status":"error"' not in answer.text
    return stage.engine.requests[-1].prompt


def refusal(stage: Stage, dialect: str, answer: Answer, status: int = 400) -> str:
    """The words of a refusal that has cost nothing and drawn nothing."""
    assert answer.status_code == (200 if dialect == "enterprise" else status), answer.text
    said = answer.json()["message" if dialect == "enterprise" else "error"]
    assert "\ufffd" not in str(said)
    return str(said)


def urlencoded(values: dict[str, Any], charset: str = "utf-8") -> bytes:
    pairs = ((quote(name), quote_from_bytes(str(value).encode(charset))) for name, value in values.items())
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def parts(values: dict[str, Any], charset: str = "utf-8", headers: str = "") -> bytes:
    """A multipart form with these texts; ``headers``: further ones of each part."""
    content = b""
    for name, value in values.items():
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n'
        content += head.encode() + str(value).encode(charset) + b"\r\n"
    return content + b"--x--\r\n"


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None, "application/octet-stream"])
def test_json_is_read_in_every_unicode_charset(
    stage: Stage, dialect: str, charset: str, content_type: str | None
) -> None:
    content = json.dumps(fields(dialect, prompt=SAID), ensure_ascii=False).encode(charset)
    assert prompt_drawn(stage, post(stage, dialect, content, content_type)) == SAID


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
def test_json_is_read_in_the_charset_that_it_names(
    stage: Stage, dialect: str, charset: str, media_type: str
) -> None:
    content = json.dumps(fields(dialect, prompt=SAID), ensure_ascii=False).encode(charset)
    for named in (charset, f'"{charset.upper()}"', f"'{charset}'"):
        answer = post(stage, dialect, content, f"{media_type}; charset={named}")
        assert prompt_drawn(stage, answer) == SAID


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "text/plain", None]
)
@pytest.mark.parametrize("charset", ["latin-1", "cp1252", "mac-roman"])
def test_json_in_another_charset_is_refused_in_words(
    stage: Stage, dialect: str, content_type: str | None, charset: str
) -> None:
    content = json.dumps(fields(dialect, prompt=SAID), ensure_ascii=False).encode(charset)
    said = refusal(stage, dialect, post(stage, dialect, content, content_type))
    assert "must be UTF-8" in said
    assert str(content.index("è".encode(charset))) in said


@pytest.mark.parametrize("charset", ["klingon", "rot13", "unicode_escape", "punycode", "x" * 5000, "utf-7"])
def test_a_charset_that_is_not_known_is_refused_by_name(stage: Stage, dialect: str, charset: str) -> None:
    values = fields(dialect, prompt="a cat")
    for content, media_type in (
        (json.dumps(values).encode(), "application/json"),
        (urlencoded(values), FORM),
        (parts(values), MULTIPART),
    ):
        said = refusal(stage, dialect, post(stage, dialect, content, f"{media_type}; charset={charset}"))
        assert f"the charset {charset[:40]} is not known" in said


def test_a_form_is_read(stage: Stage, dialect: str) -> None:
    values = fields(dialect, prompt=SAID)
    assert prompt_drawn(stage, post(stage, dialect, urlencoded(values), FORM)) == SAID
    assert prompt_drawn(stage, post(stage, dialect, parts(values), MULTIPART)) == SAID


@pytest.mark.parametrize("charset", ["latin-1", "cp1252", "shift_jis", "gb18030", "koi8-r"])
def test_a_form_is_read_in_the_charset_that_it_names(stage: Stage, dialect: str, charset: str) -> None:
    said = {"shift_jis": "青い円", "gb18030": "蓝色的圆", "koi8-r": "синий круг"}.get(charset, SAID)
    values = fields(dialect, prompt=said)
    assert (
        prompt_drawn(stage, post(stage, dialect, urlencoded(values, charset), f"{FORM}; charset={charset}"))
        == said
    )
    assert (
        prompt_drawn(stage, post(stage, dialect, parts(values, charset), f"{MULTIPART}; charset={charset}"))
        == said
    )
    named = {"_charset_": charset, **values}
    assert prompt_drawn(stage, post(stage, dialect, urlencoded(named, charset), FORM)) == said
    assert prompt_drawn(stage, post(stage, dialect, parts(named, charset), MULTIPART)) == said
    own = f"Content-Type: text/plain; charset={charset}\r\n"
    assert prompt_drawn(stage, post(stage, dialect, parts(values, charset, own), MULTIPART)) == said


@pytest.mark.parametrize("charset", ["latin-1", "cp1252", "shift_jis"])
def test_a_form_that_is_no_utf8_is_refused_on_its_field(stage: Stage, dialect: str, charset: str) -> None:
    drawn = len(stage.engine.requests)
    values = fields(dialect, prompt="青い円" if charset == "shift_jis" else SAID)
    plain = urlencoded({**values, "prompt": "P"}).replace(b"=P", b"=" + values["prompt"].encode(charset))
    for content, content_type in (
        (urlencoded(values, charset), FORM),
        (plain, FORM),
        (urlencoded(values, charset), f"{FORM}; charset=utf-8"),
        (parts(values, charset), MULTIPART),
        (parts(values, charset, "Content-Type: text/plain; charset=utf-8\r\n"), MULTIPART),
    ):
        said = refusal(stage, dialect, post(stage, dialect, content, content_type))
        assert "prompt" in said
        assert "must be UTF-8" in said
    assert len(stage.engine.requests) == drawn


def test_a_field_of_other_bytes_is_named_even_where_the_page_does_not_know_it(
    stage: Stage, dialect: str
) -> None:
    content = urlencoded(fields(dialect, prompt="a cat")) + b"&style=caf%E9"
    assert "style" in refusal(stage, dialect, post(stage, dialect, content, FORM))


@pytest.mark.parametrize("half", ["\ud800", "a \udfff cat", "\udc00\ud800"])
@pytest.mark.parametrize(
    "name", ["prompt", "negative_prompt", "seed", "base64", "track_id", "unknown", "model_id"]
)
def test_half_a_character_is_no_failure_of_the_server(
    stage: Stage, dialect: str, half: str, name: str
) -> None:
    values = fields(dialect, prompt="a cat") | {name: half}
    answer = post(stage, dialect, json.dumps(values).encode(), "application/json")
    assert answer.status_code < 500
    assert "Internal" not in answer.text
    if name in ("prompt", "negative_prompt"):
        assert "must be valid Unicode" in refusal(stage, dialect, answer)
    other = post(stage, dialect, json.dumps({**fields(dialect, prompt="a cat"), half: 1}).encode(), None)
    assert other.status_code == 200


@pytest.mark.parametrize("picture", ["\ud800", "http://127.0.0.1/\ud800", "data:image/png;base64,\udfff"])
def test_half_a_character_in_a_picture_is_no_failure_of_the_server(stage: Stage, picture: str) -> None:
    asked = {"model_id": "drawings", "prompt": "a cat", "init_image": picture}
    calls: dict[str, dict[str, object]] = {
        f"{ENTERPRISE}/img2img": asked,
        f"{ENTERPRISE}/upload_image": {"base64_image": picture},
        "/v1/sd1.5-img2img": {"prompt": "a cat", "image": picture},
        "/upload-asset": {"data_urls": [picture]},
    }
    for path, values in calls.items():
        content = json.dumps(values).encode()
        answer = stage.client.post(path, content=content, headers={"key": stage.key})
        assert answer.status_code < 500
        assert "Internal" not in answer.text


CODINGS = {
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda body: body,
    "zstd": lambda body: body,
    "identity, gzip": gzip.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", FORM, MULTIPART])
def test_a_compressed_body_is_refused_by_the_name_of_its_coding(
    stage: Stage, dialect: str, coding: str, content_type: str
) -> None:
    content = CODINGS[coding](json.dumps(fields(dialect, prompt="a cat")).encode())
    answer = post(stage, dialect, content, content_type, **{"content-encoding": coding})
    assert coding.rpartition(" ")[2].lower() in refusal(stage, dialect, answer, 415)
    assert answer.headers["accept-encoding"] == "identity"


def test_a_compressed_body_that_does_not_say_so_is_told_from_its_bytes(stage: Stage, dialect: str) -> None:
    content = gzip.compress(json.dumps(fields(dialect, prompt="a cat")).encode())
    assert "gzip" in refusal(stage, dialect, post(stage, dialect, content, "application/json"), 415)


@pytest.mark.parametrize("coding", ["", "identity", " Identity ", "utf-8", ","])
def test_what_is_no_compression_changes_nothing(stage: Stage, dialect: str, coding: str) -> None:
    content = json.dumps(fields(dialect, prompt="a cat")).encode()
    answer = post(stage, dialect, content, "application/json", **{"content-encoding": coding})
    assert prompt_drawn(stage, answer) == "a cat"


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def test_a_picture_of_an_enterprise_form_may_be_a_file(stage: Stage) -> None:
    asked = {"key": stage.key, "model_id": "drawings", "prompt": "a cat", "width": "256", "height": "256"}
    file = {"init_image": ("a.png", png(), "image/png")}
    drawn = stage.client.post(f"{ENTERPRISE}/img2img", data=asked, files=file).json()
    assert drawn["status"] == "success", drawn
    assert drawn["meta"]["init_image"] is None
    stored = stage.client.post(
        f"{ENTERPRISE}/upload_image", data={"key": stage.key}, files={"base64_image": ("a.png", png())}
    ).json()
    assert stage.client.get(stored["image_url"]).content == png()
    broken = stage.client.post(
        f"{ENTERPRISE}/img2img", data=asked, files={"init_image": ("a.png", b"nothing", "image/png")}
    ).json()
    assert "init_image" in broken["message"]


@pytest.mark.parametrize(
    "headers", ["", "Content-Type: application/octet-stream\r\n", "Content-Type: image/png\r\n"]
)
def test_a_file_without_a_name_is_a_file_all_the_same(stage: Stage, headers: str) -> None:
    values = {"prompt": "a cat", "model_id": "drawings", "width": 256, "height": 256}
    for path, name in ((f"{ENTERPRISE}/img2img", "init_image"), ("/v1/sd1.5-img2img", "image")):
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n'
        content = head.encode() + png() + b"\r\n" + parts(values)
        answer = stage.client.post(
            path, content=content, headers={"key": stage.key, "content-type": MULTIPART}
        )
        assert answer.status_code == 200, answer.text
        assert not answer.text.startswith('{"status":"error"'), answer.text


def test_base64_of_an_enterprise_form_keeps_its_plus_signs(stage: Stage) -> None:
    text = base64.b64encode(png()).decode()
    assert "+" in text
    content = f"key={stage.key}&model_id=drawings&prompt=a+cat&width=256&height=256&init_image={text}"
    answer = stage.client.post(
        f"{ENTERPRISE}/img2img", content=content, headers={"content-type": FORM}
    ).json()
    assert answer["status"] == "success", answer
    assert stage.engine.requests[-1].prompt.startswith("a cat")


def test_an_enterprise_call_may_have_no_body_at_all(stage: Stage) -> None:
    for content_type in (None, "application/json", FORM, MULTIPART):
        named = {} if content_type is None else {"content-type": content_type}
        answer = stage.client.post(
            f"{ENTERPRISE}/schedulers_list", headers={"key": stage.key, **named}
        ).json()
        assert answer["schedulers"]


@pytest.mark.parametrize("around", ["\n", " ", "\r\n", "\t", "\u00a0"])
def test_blanks_around_a_key_are_no_part_of_it(stage: Stage, around: str) -> None:
    path = f"{ENTERPRISE}/system_details"
    values = {"key": f"{around}{stage.key}{around}"}
    assert stage.client.post(path, json=values).json()["status"] == "ok"
    assert stage.client.post(path, data=values).json()["status"] == "ok"
    assert (
        stage.client.post(path, content=parts(values), headers={"content-type": MULTIPART}).json()["status"]
        == "ok"
    )


@pytest.mark.parametrize("name", ["key", "x-api-key", "authorization"])
def test_a_key_may_travel_in_a_header_in_either_dialect(stage: Stage, name: str) -> None:
    value = f"Bearer   {stage.key} " if name == "authorization" else f" {stage.key} "
    headers = {name: value}
    assert stage.client.post(f"{ENTERPRISE}/system_details", headers=headers).json()["status"] == "ok"
    assert stage.client.get("/v1/get-user-credits", headers=headers).status_code == 200


def test_the_key_of_the_body_comes_first_and_empty_ones_are_passed_over(stage: Stage) -> None:
    path = f"{ENTERPRISE}/system_details"
    right = {"x-api-key": stage.key}
    assert (
        stage.client.post(path, json={"key": "wrong"}, headers=right).json()["message"] == "Invalid Api Key"
    )
    for empty in ("", "  ", None, "\n"):
        assert stage.client.post(path, json={"key": empty}, headers=right).json()["status"] == "ok"
    headers = {"x-api-key": " ", "key": "", "authorization": f"Bearer {stage.key}"}
    assert stage.client.post(path, json={}, headers=headers).json()["status"] == "ok"
    assert stage.client.get("/v1/get-user-credits", headers=headers).status_code == 200


@pytest.mark.parametrize("api_key", ["SG_0123456789abcdef", "a1B2" * 8, "x9" * 30, "SG_" + "q" * 57])
def test_a_key_of_any_shape_works_wherever_a_key_may_stand(stage: Stage, api_key: str) -> None:
    account = stage.run(stage.services.accounts.create, f"owner of {api_key}")
    stage.run(stage.services.accounts.import_key, account.id, api_key)
    path = f"{ENTERPRISE}/system_details"
    headers = [{"x-api-key": api_key}, {"key": api_key}, {"authorization": f"Bearer {api_key}"}]
    for named in headers:
        assert stage.client.post(path, headers=named).json()["status"] == "ok"
        assert stage.client.get("/v1/get-user-credits", headers=named).json()["credits"] == 0
    for answer in (
        stage.client.post(path, json={"key": api_key}),
        stage.client.post(path, data={"key": api_key}),
        stage.client.post(path, data={"key": api_key}, files={"unused": b"x"}),
    ):
        assert answer.json()["status"] == "ok"
