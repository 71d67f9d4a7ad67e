"""One file over real connections from servers with bad habits: it comes whole, or the end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from server.loading.partial import Partial
from server.loading.transfer import CIVITAI_VARIABLES, BrokenOff, NotLoaded, Transfer, authorization
from server.outside.public_http import PublicHTTP
from server.settings import Settings

OLD = save({"weight": np.zeros(9000, np.float32)})
NEW = save({"weight": np.ones(9000, np.float32)})
LONGER = save({"weight": np.ones(9500, np.float32)})
HALF = len(OLD) // 2
LONG_AGO = {"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}
TAG, OTHER_TAG = {"ETag": '"old"'}, {"ETag": '"new"'}

Headers = Mapping[str, str]


@dataclass
class Answer:
    """What a server sends.

    Attributes:
        length: what it says that comes; None: nothing, and the connection ends the body.
        part: whether it is the part of ``body`` from the asked range on; None: it is what was asked for.
    """

    body: bytes = OLD
    headers: Headers = field(default_factory=dict[str, str])
    status: int = 200
    length: int | None = -1
    cut: int | None = None
    part: bool | None = False
    content_range: str | None = ""


@dataclass
class Site:
    """Answers in turn, the last one again and again; ``asked`` has path, Range, If-Range of each request."""

    answers: list[Answer]
    url: str = ""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def site(*answers: Answer) -> Iterator[Site]:
    serving = Site(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep test output clean."""

        def do_GET(self) -> None:
            span = self.headers.get("Range")
            serving.tokens.append(self.headers.get("Authorization"))
            serving.asked.append((self.path, span, self.headers.get("If-Range")))
            answer = serving.answers.pop(0) if len(serving.answers) > 1 else serving.answers[0]
            start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
            is_part = answer.part if answer.part is not None else span is not None
            body = answer.body[start:] if is_part else answer.body
            self.send_response_only(206 if is_part else answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if is_part and answer.content_range is not None:
                whole = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
                self.send_header("Content-Range", answer.content_range or whole)
            if answer.length is not None:
                self.send_header("Content-Length", str(len(body) if answer.length < 0 else answer.length))
            self.end_headers()
            self.wfile.write(body[: answer.cut])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield serving
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Downloads:
    """Downloads into one folder; ``bring`` gives the bytes that are there at the end."""

    folder: Path

    def bring(self, url: str) -> bytes:
        settings = Settings(data=self.folder, weights=self.folder, max_load_gb=0.001)
        public_http = PublicHTTP({"127.0.0.1", "localhost"})
        transfer = Transfer(settings, public_http, url, self.partial(url), lambda done, total: None)
        asyncio.run(transfer.run())
        return self.partial(url).path.read_bytes()

    def partial(self, url: str) -> Partial:
        return Partial(self.folder, url)


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path)


@pytest.mark.parametrize(
    ("headers", "mark"),
    [(TAG, '"old"'), ({**TAG, **LONG_AGO}, '"old"'), (LONG_AGO, LONG_AGO["Last-Modified"])],
)
def test_the_rest_is_asked_for_where_the_version_can_be_told(
    headers: Headers, mark: str, downloads: Downloads
) -> None:
    with site(Answer(headers=headers, cut=HALF), Answer(headers=headers, part=None)) as serving:
        assert downloads.bring(serving.url) == OLD
    assert serving.asked == [("/file", None, None), ("/file", f"bytes={HALF}-", mark)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"old"'},
        {"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT", "Date": "Mon, 02 Jan 2006 15:04:30 GMT"},
        {"Last-Modified": "yesterday"},
    ],
)
def test_all_is_asked_for_again_where_the_version_cannot_be_told(
    headers: Headers, downloads: Downloads
) -> None:
    with site(Answer(headers=headers, cut=HALF), Answer(NEW, headers=headers, part=None)) as serving:
        assert downloads.bring(serving.url) == NEW
    assert [span for _, span, _ in serving.asked] == [None, None]


@pytest.mark.parametrize(
    "second",
    [
        Answer(headers=TAG),  # the host ignores ranges
        Answer(NEW, headers=OTHER_TAG),  # the file has changed, and the host says so
    ],
)
def test_a_whole_answer_to_a_question_for_the_rest_takes_the_place_of_the_beginning(
    second: Answer, downloads: Downloads
) -> None:
    with site(Answer(headers=TAG, cut=HALF), second) as serving:
        assert downloads.bring(serving.url) == second.body
    assert len(serving.asked) == 2


@pytest.mark.parametrize(
    "second",
    [
        Answer(NEW, headers=OTHER_TAG, part=True),
        Answer(LONGER, headers=TAG, part=True),
        Answer(NEW, part=True),
        Answer(NEW, headers={"ETag": 'W/"old"'}, part=True),
        Answer(NEW, headers={**TAG, "Last-Modified": "Tue, 03 Jan 2006 15:04:05 GMT"}, part=True),
        Answer(NEW, headers=TAG, part=True, content_range=None),
        Answer(NEW, headers=TAG, part=True, content_range=f"bytes 0-{len(NEW) - 1}/{len(NEW)}"),
        Answer(NEW, headers=TAG, part=True, content_range="pages 1-2/3"),
    ],
)
def test_a_rest_that_may_be_of_another_version_is_never_joined(second: Answer, downloads: Downloads) -> None:
    with site(Answer(headers={**TAG, **LONG_AGO}, cut=HALF), second, Answer(NEW, part=None)) as serving:
        assert downloads.bring(serving.url) == NEW
    assert [span for _, span, _ in serving.asked] == [None, f"bytes={HALF}-", None]


def test_an_answer_without_a_length_that_ends_early_is_taken_up(downloads: Downloads) -> None:
    """Nothing on the way says that it is too short: its own header does."""
    with site(Answer(headers=TAG, length=None, cut=HALF), Answer(headers=TAG, part=None)) as serving:
        assert downloads.bring(serving.url) == OLD
    assert serving.asked[1][1] == f"bytes={HALF}-"


def test_a_host_that_announces_more_than_the_file_has_does_no_harm(downloads: Downloads) -> None:
    with site(Answer(headers=TAG, length=len(OLD) + 7)) as serving:
        assert downloads.bring(serving.url) == OLD
    assert len(serving.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(length=HALF), f"it is cut off: the server has {HALF} bytes, and its tensors need {len(OLD)}"),
        (Answer(OLD[:HALF]), f"it is cut off: the server has {HALF} bytes, and its tensors need {len(OLD)}"),
        (Answer(OLD + b"more"), f"it has something after its tensors, which end at {len(OLD)} bytes"),
        (Answer(OLD * 20, length=None), f"it has something after its tensors, which end at {len(OLD)} bytes"),
        (Answer(OLD[:8] + b"{" + b"x" * 999, length=None), "it is not a .safetensors file"),
        (Answer(bytes(9999)), "it is not a .safetensors file"),
        (Answer(b""), "it is not a .safetensors file"),
        (
            Answer(b"<!DOCTYPE html><title>Sign in</title>"),
            "it is an HTML page, not a file: its",
        ),
        (Answer(b"\xef\xbb\xbf\r\n  <HTML lang=en>" + b" " * 9999), "it is an HTML page, not a file"),
        (Answer(b"<!-- saved --><html>", length=None), "it is an HTML page, not a file"),
        (Answer(b'<?xml version="1.0"?><Error><Code>x</Code>'), "it is an XML text, not a file: "),
        (
            Answer(b'{"error": "Unauthorized"}'),
            'it is a JSON text, not a file: \'{"error": "Unauthorized"}\'',
        ),
        (Answer(b"Too many downloads today"), "it is a text, not a file: 'Too many downloads today'"),
        (
            Answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            "it is a pointer into git's large-file storage, not the file itself",
        ),
        (Answer(b"GGUF" + bytes(999)), "it is a GGUF file"),
        (Answer(b"\x89PNG\r\n\x1a\n" + bytes(999)), "it is a picture"),
        (Answer(b"\x1f\x8b" + bytes(999)), "it is compressed with gzip"),
        (Answer(b"\x80\x02}q\x00." + bytes(999)), "it is a pickle, which can run code"),
        (Answer(b"PK\x03\x04" + bytes(999)), "it is a pickle, which can run code"),
        (Answer(headers={"Content-Encoding": "gzip"}), "it could not be fetched: the server compressed the"),
    ],
)
def test_what_is_no_whole_file_is_refused_by_what_it_is(
    answer: Answer, words: str, downloads: Downloads
) -> None:
    with site(answer) as serving, pytest.raises(NotLoaded) as refused:
        downloads.bring(serving.url)
    assert str(refused.value).startswith(words)
    assert len(serving.asked) == 1


def test_an_archive_is_told_from_what_torch_saves(downloads: Downloads) -> None:
    for name, words in (("it/data.pkl", "is a pickle"), ("it.safetensors", "is a ZIP archive")):
        file = BytesIO()
        with ZipFile(file, "w") as archive:
            archive.writestr(name, OLD)
        with site(Answer(file.getvalue())) as serving, pytest.raises(NotLoaded, match=words):
            downloads.bring(serving.url)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length: int, downloads: Downloads) -> None:
    metadata = {"note": "x" * (length - len(save({"w": np.zeros(4)}, {"note": ""})) + 8 + 32)}
    data = save({"w": np.zeros(4)}, metadata)
    while int.from_bytes(data[:8], "little") != length:
        too_long = int.from_bytes(data[:8], "little") > length
        metadata["note"] = metadata["note"][:-1] if too_long else metadata["note"] + "x"
        data = save({"w": np.zeros(4)}, metadata)
    assert data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04"))
    with site(Answer(data)) as serving:
        assert downloads.bring(serving.url) == data


@pytest.mark.parametrize("coding", ["", "identity", "aws-chunked", "utf-8", "identity,aws-chunked"])
def test_a_word_that_compresses_nothing_is_no_coding(coding: str, downloads: Downloads) -> None:
    with site(Answer(headers={"Content-Encoding": coding})) as serving:
        assert downloads.bring(serving.url) == OLD


def test_a_signed_address_that_expires_is_told_and_a_new_one_goes_on(downloads: Downloads) -> None:
    expired = Answer(b"<?xml version='1.0'?><Error/>", status=403)
    with site(Answer(headers=TAG, cut=HALF), expired, Answer(headers=TAG, part=None)) as serving:
        with pytest.raises(BrokenOff) as broken:
            downloads.bring(f"{serving.url}?file=1&X-Amz-Expires=60&X-Amz-Signature=old")
        assert str(broken.value) == (
            "the server answered 403 when 0.0 MB of 0.0 MB had come: the address has expired; what came is"
            " kept for a new address of the same file"
        )
        new = f"{serving.url}?file=1&X-Amz-Expires=60&X-Amz-Signature=new"
        assert downloads.bring(new) == OLD
    assert serving.asked[-1][1] == f"bytes={HALF}-"


def test_a_page_that_comes_instead_of_the_rest_leaves_what_came(downloads: Downloads) -> None:
    """An address that has expired may lead to a login, with the status of success."""
    page = Answer(b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"})
    with site(Answer(headers=TAG, cut=HALF), page, Answer(headers=TAG, part=None)) as serving:
        with pytest.raises(BrokenOff, match="a page came instead of the rest"):
            downloads.bring(serving.url)
        assert downloads.bring(serving.url) == OLD
    assert serving.asked[-1][1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("?X-Amz-Signature=1", "?X-Amz-Signature=2", True),
        ("?X-Goog-Signature=1&X-Goog-Date=2", "?X-Goog-Signature=3&X-Goog-Date=4", True),
        ("?Expires=1&Signature=2&Key-Pair-Id=3", "?Expires=4&Signature=5&Key-Pair-Id=3", True),
        ("?sv=1&se=2&sr=b&sp=r&sig=3", "?sv=1&se=4&sr=b&sp=r&sig=5", True),
        ("?token=1", "?token=2", True),
        ("?file=1&token=1", "?file=2&token=1", False),
        ("?se=1", "?se=2", False),
        ("?fp=fp16", "?fp=fp32", False),
    ],
)
def test_a_new_signature_names_the_same_partial_file(
    one: str, other: str, same: bool, downloads: Downloads
) -> None:
    paths = [downloads.partial(f"https://host/file{query}").path for query in (one, other)]
    assert (paths[0] == paths[1]) is same


def test_a_redirect_is_followed_anew_for_the_rest(downloads: Downloads) -> None:
    with site(Answer(headers=TAG, cut=HALF), Answer(headers=TAG, part=None)) as store:
        moved = [Answer(b"", {"Location": f"{store.url}?sig={number}"}, 302) for number in (1, 2)]
        with site(*moved) as front:
            assert downloads.bring(front.url) == OLD
    assert [path for path, _, _ in store.asked] == ["/file?sig=1", "/file?sig=2"]
    assert store.asked[1][1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "the server answered 401: it wants a login or an agreement to terms, or the address has"),
        (403, {}, "the server answered 403: it wants a login"),
        (404, {}, "the server answered 404"),
        (429, {"Retry-After": "60"}, "the server answered 429, too many requests; try again after 60"),
        (500, {}, "the server answered 500"),
    ],
)
def test_a_status_that_brings_no_file_is_told(
    status: int, headers: Headers, words: str, downloads: Downloads
) -> None:
    with site(Answer(b"no", headers, status)) as serving, pytest.raises(BrokenOff) as broken:
        downloads.bring(serving.url)
    assert str(broken.value).startswith(words)
    assert len(serving.asked) == 1


def test_the_hubs_token_goes_to_the_hub_alone(downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with site(Answer()) as store:
        there = store.url.replace("127.0.0.1", "localhost")
        with site(Answer(b"", {"Location": there}, 302)) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url.removesuffix("/file"))
            assert downloads.bring(hub.url) == OLD
    assert (hub.tokens, store.tokens) == (["Bearer hf_secret"], [None])


@pytest.mark.parametrize("variable", ["CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY"])
def test_civitais_token_goes_to_civitai_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", *CIVITAI_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "secret")
    download = "https://civitai.com/api/download/models/128713"
    assert authorization(httpx.URL(download)) == {"Authorization": "Bearer secret"}
    for other in (
        "http://civitai.com/api/download/models/128713",
        "https://civitai.com:8443/api/download/models/128713",
        "https://civitai.com.example.org/x",
        "https://notcivitai.com/x",
        "https://civitai-delivery-worker-prod.example-storage.com/model/1/x.safetensors",
        "https://huggingface.co/a/b/resolve/main/x.safetensors",
    ):
        assert authorization(httpx.URL(other)) == {}


def test_attempts_come_to_an_end(downloads: Downloads) -> None:
    """Each brings something, and none brings the rest."""
    first, later = (Answer(headers=TAG, part=None, cut=size) for size in (5000, 1000))
    with site(first, later) as serving, pytest.raises(BrokenOff, match="the connection failed"):
        downloads.bring(serving.url)
    assert len(serving.asked) == 5
    assert downloads.partial(serving.url).size == 9000
