"""Bodies of the segmind dialect in every encoding that its clients use."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from fastapi import Request

from server.endpoints.segmind.body import read_body
from server.errors import FieldError, InvalidContentType, MalformedBody

SAID = {"prompt": "雪 & ice", "samples": 2, "base64": False}


def body_of(content: bytes, content_type: str | None) -> dict[str, object]:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    # The framework reports form errors as HTTP errors once there is an application.
    return asyncio.run(read_body(Request({"type": "http", "app": None, "headers": headers}, receive)))


def multipart(data: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    """What an HTTP client makes of a form with files."""
    request = httpx.Request("POST", "http://x", data=data, files=files)
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/problem+json",
        None,
        "",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "nonsense",
    ],
)
def test_json_is_parsed_whatever_the_content_type_says(content_type: str | None) -> None:
    assert body_of(json.dumps(SAID).encode(), content_type) == SAID
    assert body_of(b"\n " + json.dumps(SAID, ensure_ascii=False).encode(), content_type) == SAID


def test_json_of_megabytes_is_parsed() -> None:
    said = {"image": "A" * 2_000_000}
    assert body_of(json.dumps(said).encode(), "application/json") == said


@pytest.mark.parametrize("content", [b"", b"prompt=x", b"{", b'{"prompt": }'])
def test_a_body_that_should_be_json_and_is_not_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"^body: must be valid JSON$"):
        body_of(content, "application/json")


def test_json_that_is_no_object_is_malformed() -> None:
    with pytest.raises(MalformedBody, match=r"^body: must be a JSON object$"):
        body_of(b"[1]", "application/json")


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/xml", "image/png"])
@pytest.mark.parametrize("content", [b"", b"prompt=x", b"<prompt/>", b"\x89PNG", b'{"prompt": '])
def test_what_is_neither_json_nor_a_form_has_an_invalid_content_type(
    content_type: str | None, content: bytes
) -> None:
    with pytest.raises(InvalidContentType, match=r"^Invalid content type$"):
        body_of(content, content_type)


FORM = "application/x-www-form-urlencoded"


def test_an_urlencoded_form_is_parsed() -> None:
    content = httpx.Request("POST", "http://x", data={"prompt": "雪 & ice", "negative_prompt": ""}).read()
    assert body_of(content, FORM) == {"prompt": "雪 & ice", "negative_prompt": ""}


def test_an_urlencoded_form_in_plain_utf8_is_parsed() -> None:
    assert body_of("prompt=雪".encode(), FORM) == {"prompt": "雪"}


def test_an_urlencoded_form_may_begin_with_a_brace() -> None:
    assert body_of(b"{a=1&prompt=x", FORM) == {"{a": "1", "prompt": "x"}


def test_unescaped_base64_in_an_urlencoded_form_keeps_its_plus_signs() -> None:
    assert body_of(b"image=a+b/c==&prompt=a+b", FORM) == {"image": "a+b/c==", "prompt": "a b"}


def test_of_a_repeated_field_the_last_one_counts() -> None:
    assert body_of(b"seed=1&seed=2", FORM) == {"seed": "2"}


@pytest.mark.parametrize("content", [b"prompt=\xff\xfe", b"&".join(b"a=1" for _ in range(1001))])
def test_an_urlencoded_form_that_cannot_be_read_is_malformed(content: bytes) -> None:
    with pytest.raises((MalformedBody, FieldError)):
        body_of(content, FORM)


def test_a_multipart_form_gives_texts_and_the_bytes_of_files() -> None:
    picture = b"\x89PNG" + bytes(2_000_000)
    content, content_type = multipart({"prompt": "雪"}, {"image": ("a.png", picture, "image/png")})
    assert body_of(content, content_type) == {"prompt": "雪", "image": picture}


def test_a_text_of_megabytes_fits_a_multipart_form() -> None:
    content, content_type = multipart({"image": "A" * 3_000_000}, {"x": ("x", b"x", "text/plain")})
    assert body_of(content, content_type)["image"] == "A" * 3_000_000


def test_a_file_field_that_was_left_empty_is_nothing() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--x--\r\n'
    assert body_of(part, "multipart/form-data; boundary=x") == {"image": None}


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"prompt=x", "multipart/form-data"),
        (b"nothing of the kind", "multipart/form-data; boundary=x"),
        (b"nothing of the kind", "multipart/form-data; boundary="),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x"),
    ],
)
def test_a_multipart_form_that_cannot_be_read_is_malformed(content: bytes, content_type: str) -> None:
    with pytest.raises(MalformedBody, match=r"^body: must be valid multipart/form-data$"):
        body_of(content, content_type)
