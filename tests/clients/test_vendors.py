"""The resolver of published clients: the vendors' hosts are on this machine, and nobody else is anywhere."""

from __future__ import annotations

import pytest

from tests.clients.vendors import HOSTS, resolver


@pytest.mark.parametrize("host", [*HOSTS, *(host.encode() for host in HOSTS)])
def test_a_vendors_host_is_on_this_machine(host: str | bytes):
    resolve = resolver(https=1443, http=1080)
    for port, own in ((443, 1443), ("443", 1443), (80, 1080)):
        assert {entry[4] for entry in resolve(host, port)} == {("127.0.0.1", own)}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_is_found_at_its_own_ports(host: str):
    assert {entry[4][1] for entry in resolver(https=1443, http=1080)(host, 8000)} == {8000}


@pytest.mark.parametrize("host", ["example.com", "cdn.modelslab.com", "192.0.2.1", "10.0.0.1", "2001:db8::1"])
def test_nobody_else_is_found(host: str):
    with pytest.raises(OSError, match="is not on this machine"):
        resolver(https=1443, http=1080)(host, 443)


def test_a_vendors_other_ports_lead_nowhere():
    with pytest.raises(OSError, match="443 and 80"):
        resolver(https=1443, http=1080)("modelslab.com", 8080)
