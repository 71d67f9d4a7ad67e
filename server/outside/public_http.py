"""Requests to URLs that callers name, without letting them reach what only this machine can reach."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str], list[Address]]

MAX_URL_CHARACTERS = 4096
MAX_REDIRECTS = 5
"""The most redirects that are followed."""
REDIRECTS = (301, 302, 303, 307, 308)
"""The statuses that send a client to another URL."""
CONNECT_TIMEOUT_S = 5.0
"""The seconds to connect to one address of a host; one that swallows packets leaves time for the next."""

_NOT_PUBLIC = "its address is not a public one"
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER = (
    # Site-local, the withdrawn forerunner of private IPv6 addresses, which Python counts as global.
    IPv6Network("fec0::/10"),
    # Tunnels whose far end is an IPv4 address of the caller's choosing.
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
    # A public address on paper; inside Azure the machine's own control plane.
    IPv4Network("168.63.129.16/32"),
)


_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})
"""What compresses a body, among the words that stand in ``Content-Encoding``.

Stores and frameworks write others there too: nothing, ``identity``, ``aws-chunked``, even a charset.
"""


def is_compressed(response: httpx.Response) -> bool:
    """Whether a body, as it came, is not the thing itself but a compressed form of it."""
    said = response.headers.get("content-encoding", "").lower()
    return not _COMPRESSIONS.isdisjoint(word.strip() for word in said.split(","))


class NotReached(Exception):
    """A URL may not be or could not be reached; the text names no address that the caller did not write."""


class PublicHTTP:
    """Requests to public addresses, and to the private ones that the operator allows.

    A host name is looked up once per request, every address that comes back is checked, and the connection
    goes to one of the checked addresses, so the name cannot point elsewhere a moment later. Redirects are not
    followed: whoever does so comes back with another URL. Proxies of the environment are not used: they would
    do the look-up themselves.

    Args:
        allowed_hosts: names, addresses or networks that may be reached although they are private.
        tls: how certificates are verified; None: the usual authorities.
        resolve: host name to at least one address; blocking, raises OSError.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str],
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolver | None = None,
    ) -> None:
        self._allowed_names, self._allowed_networks = _split(allowed_hosts)
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._resolve = resolve or look_up
        # Threads of their own: a name server that never answers must not block those that decode pictures.
        self._resolver_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="resolve")

    def read(self, url: str) -> httpx.URL:
        """The URL of a text, refused where a look at it is enough: no host name is looked up.

        Raises:
            NotReached
        """
        if len(url) > MAX_URL_CHARACTERS:
            raise NotReached(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
        with _RaisesNotReached():
            return self._checked(httpx.URL(url))

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        timeout_s: float,
        stalled_s: float | None = None,
    ) -> AsyncGenerator[httpx.Response]:
        """Send one request; the body of the response is read, as far as it is, inside the ``async with``.

        Args:
            timeout_s: the seconds for all of it, the look-up and the reading included.
            stalled_s: the longest wait for the next bytes, the first ones included; None: ``timeout_s``.
        Raises:
            NotReached
        """
        timeout = httpx.Timeout(
            timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S), read=stalled_s or timeout_s
        )
        with _RaisesNotReached(stalled_s):
            async with (
                asyncio.timeout(timeout_s),
                # A new client each time: a kept connection was verified for one name and would be reused
                # for another.
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client,
            ):
                addresses = await self._addresses(self._checked(url))
                response = await _send(client, method, url, addresses, headers, content)
                try:
                    yield response
                finally:
                    await response.aclose()

    def _checked(self, url: httpx.URL) -> httpx.URL:
        if url.scheme not in ("http", "https") or not url.host:
            raise NotReached("only http and https URLs are allowed")
        if url.userinfo:
            raise NotReached("a URL with a user name or password is not allowed")
        if url.port is not None and not 1 <= url.port <= 65535:
            raise NotReached("ports go from 1 to 65535")
        host = _host(url)
        if not self._is_allowed(host, _addresses_by_sight(host)):
            raise NotReached(_NOT_PUBLIC)
        return url

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        host = _host(url)
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(self._resolver_threads, self._resolve, host)
        except (OSError, UnicodeError) as error:
            raise NotReached("its host name is not known") from error
        if not self._is_allowed(host, addresses):
            raise NotReached(_NOT_PUBLIC)
        return addresses

    def _is_allowed(self, host: str, addresses: list[Address]) -> bool:
        return host.lower().rstrip(".") in self._allowed_names or all(map(self._permitted, addresses))

    def _permitted(self, address: Address) -> bool:
        return is_public(address) or any(_unwrap(address) in network for network in self._allowed_networks)


def look_up(host: str) -> list[Address]:
    """Every address of a host name or of any spelling of an address (``0x7f.1``, ``2130706433``).

    Raises:
        OSError: no such host.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """Whether the address means the same machine everywhere on the internet.

    Private, loopback, link-local, shared, multicast, reserved and unspecified ones do not, nor such an
    address wrapped into an IPv6 one.
    """
    address = _unwrap(address)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NEVER)
    )


async def _send(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL,
    addresses: list[Address],
    headers: Mapping[str, str],
    content: bytes | None,
) -> httpx.Response:
    """The head of the response. Addresses are tried in turn until one accepts the connection."""
    for address in addresses:
        request = client.build_request(
            method,
            url.copy_with(host=str(address)),
            headers={
                "Host": url.netloc.decode("ascii"),
                # A compressed body could be small on the way and endless when unpacked.
                "Accept-Encoding": "identity",
                "User-Agent": "understudy-server",
                **headers,
            },
            content=content,
            extensions={"sni_hostname": _host(url).rstrip(".")},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == addresses[-1]:
                raise
    raise NotReached("its host name is not known")


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


def _addresses_by_sight(host: str) -> list[Address]:
    """The addresses that a host is known to have without a look-up: those it spells, and ``localhost``'s."""
    if host.lower().rstrip(".").rpartition(".")[2] == "localhost":
        return [IPv4Address("127.0.0.1")]
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [ipaddress.ip_address(entry[4][0]) for entry in found]
    return []


class _RaisesNotReached:
    """A context in which a failure on the way to somebody else's server becomes `NotReached`."""

    def __init__(self, stalled_s: float | None = None) -> None:
        self._stalled_s = stalled_s

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case httpx.ReadTimeout() if self._stalled_s is not None:
                raise NotReached(f"nothing came for {self._stalled_s:g} seconds") from error
            case TimeoutError() | httpx.TimeoutException():
                raise NotReached("it took too long") from error
            case httpx.InvalidURL() | ValueError():
                # ValueError: lone surrogates, which JSON can say and a URL cannot.
                raise NotReached("the URL is malformed") from error
            case httpx.HTTPError() | httpx.StreamError() | OSError():
                raise NotReached("the connection failed") from error
            case _:
                pass


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _split(allowed_hosts: Iterable[str]) -> tuple[set[str], list[Network]]:
    """Host names, and the addresses and networks, among the allowed hosts."""
    names, networks = set[str](), list[Network]()
    for entry in allowed_hosts:
        try:
            networks.append(ipaddress.ip_network(entry.strip(), strict=False))
        except ValueError:
            names.add(entry.strip().lower().rstrip("."))
    return names, networks
