"""Habits of HTTP libraries, which their callers do not choose: each way to ask leads to its answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from server.commands.serve import web_server
from server.settings import Settings
from tests.running_server import ENTERPRISE, HTTP, RunningServer

MODEL = "stable-diffusion-v1-5"
TEXT2IMG = f"{ENTERPRISE}/text2img"


@pytest.fixture
def caller(server: RunningServer) -> Iterator[socket.socket]:
    """A connection to the server that sends just what it is told."""
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        yield connection


def drawing(server: RunningServer) -> bytes:
    fields = {"key": server.key, "prompt": "a cat", "model_id": MODEL, "width": 256, "height": 256}
    return json.dumps({**fields, "num_inference_steps": 1, "enhance_prompt": "no"}).encode()


def head(path: str, version: str = "1.1", **headers: object) -> bytes:
    lines = [f"POST {path} HTTP/{version}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answered(caller: socket.socket) -> tuple[int, dict[str, object]]:
    """The status of the next answer of the connection, and its body; not a byte of a further one is read."""

    def read(count: int) -> bytes:
        content = b""
        while len(content) < count:
            part = caller.recv(count - len(content))
            assert part, f"the connection ended after {content!r}"
            content += part
        return content

    lines = b""
    while not lines.endswith(b"\r\n\r\n"):
        lines += read(1)
    status, *headers = lines.decode("latin-1").splitlines()
    length = next(line for line in headers if line.lower().startswith("content-length:"))
    return int(status.split()[1]), json.loads(read(int(length.partition(":")[2])))


def sent(server: RunningServer, body: bytes, **headers: object) -> bytes:
    """An ordinary call of text2img."""
    return (
        head(TEXT2IMG, Host="a", Content_Length=len(body), Content_Type="application/json", **headers) + body
    )


def test_http_1_0_is_answered_and_the_connection_closed(server: RunningServer, caller: socket.socket):
    body = drawing(server)
    caller.sendall(head(TEXT2IMG, "1.0", Content_Length=len(body), Content_Type="application/json") + body)
    status, said = answered(caller)
    assert (status, said["status"]) == (200, "success")
    assert caller.recv(1) == b""


def test_who_waits_for_permission_to_send_its_body_gets_it(server: RunningServer, caller: socket.socket):
    """curl and .NET with a large body."""
    body = drawing(server)
    content = {"Content_Length": len(body), "Content_Type": "application/json"}
    caller.sendall(head(TEXT2IMG, Host="a", Expect="100-continue", **content))
    permission = b""
    while not permission.endswith(b"\r\n\r\n"):
        permission += caller.recv(1)
    assert permission.startswith(b"HTTP/1.1 100 ")
    caller.sendall(body)
    assert answered(caller)[1]["status"] == "success"


def test_a_body_in_chunks_arrives(server: RunningServer, caller: socket.socket):
    """Streams of Node and Go."""
    body = drawing(server)
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:100], body[100:], b"")
    )
    caller.sendall(head(TEXT2IMG, Host="a", Transfer_Encoding="chunked", Content_Type="application/json"))
    caller.sendall(chunks)
    assert answered(caller)[1]["status"] == "success"


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"},
        {"Connection": "upgrade", "Upgrade": "TLS/1.0"},
    ],
)
def test_who_offers_another_protocol_is_answered_in_this_one(
    server: RunningServer, caller: socket.socket, headers: Mapping[str, str]
):
    """Java's own client offers HTTP/2 with every call that is not encrypted."""
    caller.sendall(
        sent(server, drawing(server), **{name.replace("-", "_"): headers[name] for name in headers})
    )
    status, said = answered(caller)
    assert (status, said["status"]) == (200, "success")


def test_a_whole_url_in_the_request_line_is_a_path(server: RunningServer, caller: socket.socket):
    """Callers who think of a proxy, and one published client that fetches so."""
    body = drawing(server)
    content = {"Content_Length": len(body), "Content_Type": "application/json"}
    caller.sendall(head(f"http://stablediffusionapi.com{TEXT2IMG}", Host="a", **content) + body)
    assert answered(caller)[1]["status"] == "success"


def test_a_connection_is_kept_whatever_was_answered(server: RunningServer, caller: socket.socket):
    unknown = head("/v1/nothing", Host="a", Content_Length=2) + b"{}"
    wrong = sent(server, b'{"key": "wrong"}')
    broken = sent(server, b"{")
    for request, word in ((unknown, "error"), (wrong, "message"), (broken, "message")):
        caller.sendall(request)
        assert word in answered(caller)[1]
    caller.sendall(sent(server, drawing(server)))
    assert answered(caller)[1]["status"] == "success"


def test_two_calls_may_be_sent_before_the_first_is_answered(server: RunningServer, caller: socket.socket):
    caller.sendall(sent(server, drawing(server)) + sent(server, b'{"key": "wrong"}'))
    assert answered(caller)[1]["status"] == "success"
    assert answered(caller)[1]["message"] == "Invalid Api Key"


def test_long_headers_of_browsers_are_taken(server: RunningServer, caller: socket.socket):
    caller.sendall(
        sent(server, drawing(server), Cookie="a=" + "x" * 16_000, Referer="http://a/" + "y" * 4000)
    )
    assert answered(caller)[1]["status"] == "success"


@pytest.mark.parametrize("accept", ["gzip, deflate, br, zstd", "identity", "*;q=0", ""])
@pytest.mark.parametrize("wanted", ["application/json", "image/png", "*/*", "text/html,*/*;q=0.1"])
def test_nothing_is_negotiated(server: RunningServer, accept: str, wanted: str):
    headers = {"accept-encoding": accept, "accept": wanted, "x-api-key": server.key}
    answer = HTTP.get(f"{server.url}/v1/get-user-credits", headers=headers)
    assert (answer.status_code, "content-encoding" in answer.headers) == (200, False)
    assert answer.json()["credits"] > 0


def test_an_output_may_be_asked_for_before_it_is_taken(server: RunningServer):
    """Bots of chat programs look at a picture with HEAD, then take it; others take it in parts."""
    drawn = HTTP.post(server.url + TEXT2IMG, content=drawing(server), timeout=60).json()["output"][0]
    asked = HTTP.head(drawn)
    assert (asked.status_code, asked.headers["content-type"], asked.content) == (200, "image/png", b"")
    picture = HTTP.get(drawn).content
    assert int(asked.headers["content-length"]) == len(picture)
    parts = [HTTP.get(drawn, headers={"range": wanted}).content for wanted in ("bytes=0-99", "bytes=100-")]
    assert b"".join(parts) == picture
    assert Image.open(BytesIO(picture)).format == "PNG"


@pytest.mark.parametrize("path", ["/v1/kandinsky2%2E2-txt2img", "/v1/kandinsky2.2%2Dtxt2img"])
def test_escapes_in_a_path_change_nothing(server: RunningServer, path: str):
    answer = HTTP.post(server.url + path, json={}, headers={"x-api-key": server.key})
    assert (answer.status_code, answer.json()["error"][:6]) == (400, "prompt")


def test_the_key_may_stand_in_several_places_at_once(server: RunningServer):
    headers = {"x-api-key": server.key, "Authorization": f"Bearer {server.key}", "key": server.key}
    answer = HTTP.post(f"{server.url}{ENTERPRISE}/system_details", json={"key": server.key}, headers=headers)
    assert answer.json()["status"] == "ok"
    assert HTTP.get(f"{server.url}/v1/get-user-credits", headers=headers).status_code == 200


def test_a_connection_outlives_the_pauses_of_who_polls(tmp_path: Path):
    """The vendor's SDK asks again after 60 seconds, and none of them sends a POST twice."""
    assert web_server(Settings(data=tmp_path), "info").config.timeout_keep_alive > 60
