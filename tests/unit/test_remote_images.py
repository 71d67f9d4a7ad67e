"""What a caller's URL may reach, against real servers on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.outside.public_http import Address, is_public, look_up
from server.outside.remote_images import NotFetched, RemoteImages, TooLargeToFetch
from server.settings import Settings

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
HERE = frozenset({"127.0.0.1/32"})


def raw(text: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


def ok(body: bytes, *headers: str) -> Answer:
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers])
    return raw(head.encode() + b"\r\n\r\n" + body)


def redirect(location: str, status: int = 302) -> Answer:
    return raw(f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


@dataclass
class Site:
    """A web server on a free port of this machine that remembers what it was asked."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    port: int = 0

    async def __aenter__(self) -> Site:
        if self.tls:
            self.tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = await asyncio.start_server(self._serve, self.address, 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            path = request.split(b" ")[1].decode()
            await self.answers.get(path, raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def images(
    *allowed: str,
    resolve: Callable[[str], list[Address]] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 10.0,
    max_mb: float = 1.0,
) -> RemoteImages:
    settings = Settings(
        fetch_allowed_hosts=frozenset(allowed), fetch_timeout_s=timeout_s, max_image_mb=max_mb
    )
    return RemoteImages(settings, resolve=resolve, tls=tls)


def pointing_to(*addresses: str) -> Callable[[str], list[Address]]:
    return lambda _host: [ipaddress.ip_address(address) for address in addresses]


def refusal(remote: RemoteImages, url: str) -> str:
    with pytest.raises(NotFetched, match=r"^could not be fetched: ") as caught:
        asyncio.run(remote.fetch(url))
    return str(caught.value)


def test_the_body_of_a_url_is_fetched() -> None:
    async def scenario() -> None:
        async with Site({"/cat.png?size=2": ok(b"\x89PNG")}) as site:
            assert await images(*HERE).fetch(site.url("/cat.png?size=2")) == b"\x89PNG"
            request = site.requests[0].decode()
            assert f"\r\nHost: 127.0.0.1:{site.port}\r\n" in request
            assert "\r\nAccept-Encoding: identity\r\n" in request

    asyncio.run(scenario())


def test_a_body_without_a_stated_length_is_fetched_to_its_end() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def scenario() -> None:
        async with Site({"/a": raw(b"HTTP/1.0 200 OK\r\n\r\nabcde"), "/b": raw(chunked)}) as site:
            assert await images(*HERE).fetch(site.url("/a")) == b"abcde"
            assert await images(*HERE).fetch(site.url("/b")) == b"abcde"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:8000/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://017700000001/",
        "http://0/",
        "http://0.0.0.0/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://168.63.129.16/metadata",
        "http://100.100.100.200/latest/meta-data/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://100.64.0.1/",
        "http://198.18.0.1/",
        "http://192.0.2.1/",
        "http://224.0.0.1/",
        "http://224.0.1.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[fc00::1]/",
        "http://[ff02::1]/",
        "http://[ff0e::1]/",
        "http://[2001:db8::1]/",
        "https://127.0.0.1/",
    ],
)
def test_an_address_that_is_not_public_is_refused_in_every_spelling(url: str) -> None:
    assert refusal(images(), url) == "could not be fetched: its address is not a public one"


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_a_name_that_also_has_a_private_address_is_refused_without_a_connection() -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"secret")}) as site:
            remote = images(*HERE, resolve=pointing_to("127.0.0.1", "10.0.0.1"))
            with pytest.raises(NotFetched, match="not a public one"):
                await remote.fetch(site.url(host="pictures.example"))
            assert site.requests == []

    asyncio.run(scenario())


def test_a_name_is_looked_up_once_and_cannot_point_elsewhere_afterwards() -> None:
    asked: list[str] = []

    def rebinding(host: str) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "10.0.0.1")]

    async def scenario() -> None:
        async with Site({"/": ok(b"first"), "/again": redirect("/")}) as site:
            remote = images(*HERE, resolve=rebinding)
            assert await remote.fetch(site.url(host="pictures.example")) == b"first"
            assert asked == ["pictures.example"]
            assert f"\r\nHost: pictures.example:{site.port}\r\n".encode() in site.requests[0]
            asked.clear()
            with pytest.raises(NotFetched, match="not a public one"):
                await remote.fetch(site.url("/again", host="pictures.example"))
            assert len(asked) == 2
            assert len(site.requests) == 2

    asyncio.run(scenario())


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"here")}) as site:
            remote = images("127.0.0.0/8", resolve=pointing_to("127.0.0.2", "127.0.0.3", "127.0.0.1"))
            assert await remote.fetch(site.url(host="pictures.example")) == b"here"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "allowed", ["127.0.0.1", "127.0.0.0/8", "127.0.0.5/8", "pictures.example", "Pictures.Example."]
)
def test_a_private_host_can_be_allowed_as_address_network_or_name(allowed: str) -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"fine")}) as site:
            remote = images(allowed, resolve=pointing_to("127.0.0.1"))
            assert await remote.fetch(site.url(host="pictures.EXAMPLE")) == b"fine"

    asyncio.run(scenario())


def test_an_allowed_name_does_not_allow_its_address_under_another_name() -> None:
    remote = images("pictures.example", resolve=pointing_to("127.0.0.1"))
    for host in ("other.example", "sub.pictures.example", "127.0.0.1"):
        assert "not a public one" in refusal(remote, f"http://{host}/")


def test_an_allowed_network_does_not_allow_another_one() -> None:
    remote = images("10.0.0.0/8", "fd00::/8")
    for host in ("127.0.0.1", "192.168.0.1", "[::1]", "169.254.169.254"):
        assert "not a public one" in refusal(remote, f"http://{host}/")


def test_an_allowed_address_is_also_allowed_wrapped_into_ipv6() -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"fine")}) as site:
            assert await images(*HERE).fetch(site.url(host="[::ffff:127.0.0.1]")) == b"fine"

    asyncio.run(scenario())


def test_redirects_are_followed_also_relative_ones() -> None:
    async def scenario() -> None:
        async with Site({"/b/2": ok(b"there"), "/a/1": redirect("../b/2", 308)}) as site:
            site.answers["/"] = redirect(site.url("/a/1"), 301)
            assert await images(*HERE).fetch(site.url()) == b"there"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://10.0.0.1/", "its address is not a public one"),
        ("http://0x7f.2/", "its address is not a public one"),
        ("//169.254.169.254/latest", "its address is not a public one"),
        ("http://user:secret@127.0.0.1/", "a URL with a user name or password is not allowed"),
        ("file:///etc/passwd", "only http and https URLs are allowed"),
        ("gopher://127.0.0.1/", "only http and https URLs are allowed"),
        ("http://[broken/", "its host name is not known"),
        ("http://a:b:c/", "the connection failed"),
        ("/", "more than 5 redirects"),
    ],
)
def test_a_redirect_to_where_one_may_not_go_is_refused(location: str, reason: str) -> None:
    async def scenario() -> None:
        async with Site({"/": redirect(location)}) as site:
            with pytest.raises(NotFetched) as caught:
                await images(*HERE).fetch(site.url())
            assert str(caught.value) == f"could not be fetched: {reason}"
            assert len(site.requests) == (6 if location == "/" else 1)

    asyncio.run(scenario())


def test_five_redirects_are_allowed() -> None:
    async def scenario() -> None:
        answers = {f"/{n}": redirect(f"/{n + 1}") for n in range(5)} | {"/5": ok(b"there")}
        async with Site(answers) as site:
            assert await images(*HERE).fetch(site.url("/0")) == b"there"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/cat.png", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("http:///cat.png", "only http and https"),
        ("cat.png", "only http and https"),
        ("", "only http and https"),
        ("http://user@example.com/", "user name or password"),
        ("http://user:secret@example.com/", "user name or password"),
        ("http://example.com:99999/", "ports go from 1 to 65535"),
        ("http://example.com:0/", "ports go from 1 to 65535"),
        ("http://example.com:port/", "malformed"),
        ("http://exa\nmple.com/", "malformed"),
        ("http://[zz]/", "malformed"),
        ("http://0177.0.0.1/", "malformed"),
        ("http://example.com/\ud800", "malformed"),
        ("http://no-such-host.invalid/", "its host name is not known"),
        ("http://a..b/", "its host name is not known"),
        ("http://" + "a" * 300 + ".example/", "its host name is not known"),
        ("http://example.com/" + "a" * 5000, "longer than 4096"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused_in_words(url: str, reason: str) -> None:
    assert reason in refusal(images(), url)


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500, 503])
def test_another_status_than_200_is_refused(status: int) -> None:
    async def scenario() -> None:
        head = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
        async with Site({"/": raw(head)}) as site:
            with pytest.raises(NotFetched, match=f"the server answered {status}"):
                await images(*HERE).fetch(site.url())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_what_is_not_http_or_ends_early_is_refused(answer: bytes) -> None:
    async def scenario() -> None:
        async with Site({"/": raw(answer)}) as site:
            with pytest.raises(NotFetched, match="the connection failed"):
                await images(*HERE).fetch(site.url())

    asyncio.run(scenario())


def test_nobody_listening_is_refused_without_naming_an_address() -> None:
    async def scenario() -> None:
        async with Site() as site:
            pass
        remote = images(*HERE, resolve=pointing_to("127.0.0.1"))
        with pytest.raises(NotFetched, match="the connection failed") as caught:
            await remote.fetch(site.url(host="pictures.example"))
        assert "127" not in str(caught.value)

    asyncio.run(scenario())


def test_a_body_may_be_as_large_as_allowed_and_not_a_byte_larger() -> None:
    async def scenario() -> None:
        async with Site({"/a": ok(b"x" * 10_000), "/b": ok(b"x" * 10_001)}) as site:
            remote = images(*HERE, max_mb=0.01)
            assert len(await remote.fetch(site.url("/a"))) == 10_000
            with pytest.raises(TooLargeToFetch, match=r"^is larger than 0\.01 MB"):
                await remote.fetch(site.url("/b"))

    asyncio.run(scenario())


def test_an_endless_body_is_cut_off() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async def scenario() -> None:
        async with Site({"/": endless}) as site:
            with pytest.raises(TooLargeToFetch):
                await images(*HERE).fetch(site.url())

    asyncio.run(scenario())
    assert 1_000_000 <= sent < 50_000_000


def test_a_stated_length_over_the_limit_is_refused_at_once() -> None:
    async def scenario() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"
        async with Site({"/": raw(head)}) as site:
            with pytest.raises(TooLargeToFetch):
                await images(*HERE).fetch(site.url())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "coding",
    [
        "gzip", "x-gzip", "deflate", "br", "zstd", "compress", "GZIP", " gzip ", "aws-chunked, gzip",
        "gzip,identity",
    ],
)  # fmt: skip
def test_a_compressed_answer_is_refused_rather_than_unpacked(coding: str) -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"\x1f\x8b", f"Content-Encoding: {coding}")}) as site:
            with pytest.raises(NotFetched, match="compressed"):
                await images(*HERE).fetch(site.url())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "words",
    [
        ("",), ("identity",), ("aws-chunked",), ("utf-8",), ("UTF-8",), ("none",), ("binary",),
        ("identity, aws-chunked",), (", ,",), ("aws-chunked", "identity"),
    ],
)  # fmt: skip
def test_a_word_that_compresses_nothing_is_no_coding(words: tuple[str, ...]) -> None:
    async def scenario() -> None:
        headers = [f"Content-Encoding: {word}" for word in words]
        async with Site({"/": ok(b"\x89PNG", *headers)}) as site:
            assert await images(*HERE).fetch(site.url()) == b"\x89PNG"

    asyncio.run(scenario())


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def dripping(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_server_that_takes_its_time_is_left_after_the_whole_time(answer: Answer) -> None:
    async def scenario() -> None:
        async with Site({"/": answer}) as site:
            started = time.monotonic()
            with pytest.raises(NotFetched, match="it took too long"):
                await images(*HERE, timeout_s=0.3).fetch(site.url())
            assert 0.25 < time.monotonic() - started < 5

    asyncio.run(scenario())


def test_a_name_server_that_never_answers_counts_into_the_whole_time() -> None:
    released = threading.Event()

    def hanging(_host: str) -> list[Address]:
        released.wait(30)
        raise OSError

    try:
        assert "it took too long" in refusal(images(resolve=hanging, timeout_s=0.2), "http://slow.example/")
    finally:
        released.set()


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Site({"/": ok(b"direct")}) as site, Site() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url())
            monkeypatch.setenv("no_proxy", "")
            assert await images(*HERE).fetch(site.url()) == b"direct"
            assert proxy.requests == []

    asyncio.run(scenario())


def test_an_ipv6_server_can_be_fetched_from() -> None:
    async def scenario() -> None:
        try:
            site = await Site({"/": ok(b"six")}, address="::1").__aenter__()
        except OSError:
            pytest.skip("this machine has no IPv6")
        async with site:
            assert await images("::1").fetch(site.url(host="[::1]")) == b"six"
            assert f"\r\nHost: [::1]:{site.port}\r\n".encode() in site.requests[0]

    asyncio.run(scenario())


def test_look_up_finds_every_address_of_a_name_once() -> None:
    assert ipaddress.ip_address("127.0.0.1") in look_up("localhost")
    assert look_up("2130706433") == [ipaddress.ip_address("127.0.0.1")]


def certificate_for(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's TLS context; the client trusts this one certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    )
    builder = builder.serial_number(1).not_valid_before(datetime.now(UTC) - timedelta(days=1))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


def test_over_tls_the_name_is_sent_and_verified_although_the_connection_goes_to_an_address(
    tmp_path: Path,
) -> None:
    server, client = certificate_for("pictures.example", tmp_path)

    async def scenario() -> None:
        async with Site({"/": ok(b"safe")}, tls=server) as site:
            remote = images(*HERE, resolve=pointing_to("127.0.0.1"), tls=client)
            assert await remote.fetch(site.url(host="pictures.example")) == b"safe"
            assert site.server_names == ["pictures.example"]
            assert f"\r\nHost: pictures.example:{site.port}\r\n".encode() in site.requests[0]

            for impostor in ("other.example", "127.0.0.1"):
                with pytest.raises(NotFetched, match="the connection failed"):
                    await remote.fetch(site.url(host=impostor))
            assert len(site.requests) == 1

    asyncio.run(scenario())


def test_a_certificate_that_no_authority_signed_is_refused(tmp_path: Path) -> None:
    server, _ = certificate_for("pictures.example", tmp_path)

    async def scenario() -> None:
        async with Site({"/": ok(b"unsafe")}, tls=server) as site:
            remote = images(*HERE, resolve=pointing_to("127.0.0.1"))
            with pytest.raises(NotFetched, match="the connection failed"):
                await remote.fetch(site.url(host="pictures.example"))
            assert site.requests == []

    asyncio.run(scenario())
