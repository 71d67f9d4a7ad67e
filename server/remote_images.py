"""Fetching a caller's URL without letting it reach what only this machine can reach."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

from server.errors import BodyTooLarge, FieldError
from server.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str], list[Address]]

MAX_REDIRECTS = 5
MAX_URL_CHARACTERS = 4096
CONNECT_TIMEOUT_S = 5.0
"""For each address of a host, so that one that swallows packets leaves time for the next."""

_REDIRECTS = (301, 302, 303, 307, 308)
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


class RemoteImages:
    """Downloads pictures that callers name by URL.

    A host name is looked up once per request, every address that comes back is checked, and the connection
    goes to one of the checked addresses, so the name cannot point elsewhere a moment later. Redirects pass
    the same check. Proxies of the environment are not used: they would do the look-up themselves.

    Args:
        settings: ``max_image_mb``, ``fetch_timeout_s``, ``fetch_allowed_hosts``.
        tls: how certificates are verified; None: the usual authorities.
        resolve: host name to at least one address; blocking, raises OSError.
    """

    def __init__(
        self, settings: Settings, *, tls: ssl.SSLContext | None = None, resolve: Resolver | None = None
    ) -> None:
        self._max_bytes = int(settings.max_image_mb * 1_000_000)
        self._too_large = f"image: is larger than {settings.max_image_mb:g} MB"
        self._timeout_s = settings.fetch_timeout_s
        self._allowed_names, self._allowed_networks = _split(settings.fetch_allowed_hosts)
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._resolve = resolve or look_up
        # Threads of their own: a name server that never answers must not block those that decode pictures.
        self._resolver_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="resolve")

    async def fetch(self, url: str) -> bytes:
        """The body behind an http or https URL, whatever it is; at most ``max_image_mb``.

        Raises:
            FieldError: on ``image``: not such a URL, an address that is not public, an answer other than 200,
                or ``fetch_timeout_s`` went by. The text names no address that the caller did not write.
            BodyTooLarge: more bytes than allowed; the rest was not read.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _refused("it took too long") from error
        except (httpx.InvalidURL, ValueError) as error:
            # ValueError: lone surrogates, which JSON can say and a URL cannot.
            raise _refused("the URL is malformed") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise _refused("the connection failed") from error

    async def _follow(self, url: str) -> bytes:
        if len(url) > MAX_URL_CHARACTERS:
            raise _refused(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
        target = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            addresses = await self._checked_addresses(target)
            found = await self._request(target, addresses)
            if isinstance(found, bytes):
                return found
            target = target.join(found)
        raise _refused(f"more than {MAX_REDIRECTS} redirects")

    async def _checked_addresses(self, url: httpx.URL) -> list[Address]:
        if url.scheme not in ("http", "https") or not url.host:
            raise _refused("only http and https URLs are fetched")
        if url.userinfo:
            raise _refused("a URL with a user name or password is not fetched")
        host, port = url.raw_host.decode("ascii"), url.port
        if port is not None and not 1 <= port <= 65535:
            raise _refused("ports go from 1 to 65535")
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(self._resolver_threads, self._resolve, host)
        except (OSError, UnicodeError) as error:
            raise _refused("its host name is not known") from error
        if host.lower().rstrip(".") not in self._allowed_names and not all(map(self._permitted, addresses)):
            raise _refused("its address is not a public one")
        return addresses

    def _permitted(self, address: Address) -> bool:
        return is_public(address) or any(_unwrap(address) in network for network in self._allowed_networks)

    async def _request(self, url: httpx.URL, addresses: list[Address]) -> bytes | str:
        """The body, or where a redirect points to. Addresses are tried in turn until one accepts."""
        timeout = httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S))
        # A new client each time: a kept connection was verified for one name and would be reused for another.
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client:
            for address in addresses[:-1]:
                try:
                    return await self._request_from(client, url, address)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
            return await self._request_from(client, url, addresses[-1])

    async def _request_from(self, client: httpx.AsyncClient, url: httpx.URL, address: Address) -> bytes | str:
        request = client.build_request(
            "GET",
            url.copy_with(host=str(address)),
            headers={
                "Host": url.netloc.decode("ascii"),
                "Accept": "image/*",
                # A compressed body could be small on the way and endless when unpacked.
                "Accept-Encoding": "identity",
                "User-Agent": "understudy-server",
            },
            extensions={"sni_hostname": url.raw_host.decode("ascii").rstrip(".")},
        )
        response = await client.send(request, stream=True)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return response.headers["location"]
            if response.status_code != 200:
                raise _refused(f"the server answered {response.status_code}")
            return await self._body(response)
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _refused("the server compressed the answer although it was asked not to")
        stated = response.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            raise BodyTooLarge(self._too_large)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise BodyTooLarge(self._too_large)
        return bytes(body)


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


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _split(allowed_hosts: frozenset[str]) -> tuple[set[str], list[Network]]:
    """Host names, and the addresses and networks, among the allowed hosts."""
    names, networks = set[str](), list[Network]()
    for entry in allowed_hosts:
        try:
            networks.append(ipaddress.ip_network(entry.strip(), strict=False))
        except ValueError:
            names.add(entry.strip().lower().rstrip("."))
    return names, networks


def _refused(reason: str) -> FieldError:
    return FieldError("image", f"could not be fetched: {reason}")
