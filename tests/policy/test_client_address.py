"""Whose address a request came from: X-Forwarded-For counts as far as those who wrote it are trusted."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.policy.client_address import client_address

Address = IPv4Address | IPv6Address

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32")]

TABLE = {
    "no header": ("10.0.0.1", None, "10.0.0.1"),
    "one client": ("10.0.0.1", b"203.0.113.9", "203.0.113.9"),
    "blanks around": ("10.0.0.1", b" \t203.0.113.9\t ", "203.0.113.9"),
    "a client that made up a hop before": ("10.0.0.1", b"198.51.100.1, 203.0.113.9", "203.0.113.9"),
    "a client that made up a trusted hop": ("10.0.0.1", b"10.0.0.7, 203.0.113.9", "203.0.113.9"),
    "two balancers": ("10.0.0.1", b"203.0.113.9,10.0.0.2", "203.0.113.9"),
    "three balancers": ("10.0.0.1", b"203.0.113.9, 10.0.0.3,10.0.0.2", "203.0.113.9"),
    "a hop made up behind two balancers": ("10.0.0.1", b"::1,203.0.113.9,10.0.0.2", "203.0.113.9"),
    "everybody is trusted": ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
    "a peer that is not trusted": ("192.0.2.1", b"203.0.113.9", "192.0.2.1"),
    "a peer just outside of the network": ("11.0.0.0", b"203.0.113.9", "11.0.0.0"),
    "a peer at the end of the network": ("10.255.255.255", b"203.0.113.9", "203.0.113.9"),
    "a single trusted address": ("127.0.0.1", b"203.0.113.9", "203.0.113.9"),
    "beside a single trusted address": ("127.0.0.2", b"203.0.113.9", "127.0.0.2"),
    "IPv6 balancer": ("fd00::1", b"2001:db8::9", "2001:db8::9"),
    "IPv6 peer that is not trusted": ("2001:db8::1", b"203.0.113.9", "2001:db8::1"),
    "IPv6 in long form": ("fd00::1", b"2001:0DB8:0:0:0:0:0:0009", "2001:db8::9"),
    "an IPv4 balancer on an IPv6 socket": ("::ffff:10.0.0.1", b"203.0.113.9", "203.0.113.9"),
    "an IPv4 peer on an IPv6 socket": ("::ffff:192.0.2.1", b"203.0.113.9", "::ffff:192.0.2.1"),
    "IPv6 client behind IPv4": ("10.0.0.1", b"2001:db8::9", "2001:db8::9"),
    "empty": ("10.0.0.1", b"", "10.0.0.1"),
    "an empty hop": ("10.0.0.1", b"203.0.113.9,", "10.0.0.1"),
    "an empty hop in between": ("10.0.0.1", b"203.0.113.9,,10.0.0.2", "10.0.0.2"),
    "unknown": ("10.0.0.1", b"unknown", "10.0.0.1"),
    "a name": ("10.0.0.1", b"localhost", "10.0.0.1"),
    "with a port": ("10.0.0.1", b"203.0.113.9:80", "10.0.0.1"),
    "in brackets": ("10.0.0.1", b"[2001:db8::9]", "10.0.0.1"),
    "in quotes": ("10.0.0.1", b'"203.0.113.9"', "10.0.0.1"),
    "leading zeros": ("10.0.0.1", b"203.0.113.009", "10.0.0.1"),
    "a number": ("10.0.0.1", b"3405803785", "10.0.0.1"),
    "a network": ("10.0.0.1", b"203.0.113.0/24", "10.0.0.1"),
    "garbage behind a good hop": ("10.0.0.1", b"203.0.113.9, \xff\x00", "10.0.0.1"),
    "garbage before a good hop": ("10.0.0.1", b"\xff\x00, 203.0.113.9", "203.0.113.9"),
    "no peer": ("", b"203.0.113.9", ""),
}


@pytest.mark.parametrize(("peer", "forwarded_for", "expected"), TABLE.values(), ids=TABLE)
def test_the_address_is_the_first_that_no_trusted_balancer_vouches_for(
    peer: str, forwarded_for: bytes | None, expected: str
) -> None:
    assert client_address(peer, forwarded_for, NETWORKS) == expected


@pytest.mark.parametrize("peer", ["10.0.0.1", "127.0.0.1", "::1", ""])
def test_nobody_is_trusted_unless_named(peer: str) -> None:
    assert client_address(peer, b"203.0.113.9", []) == peer


@given(st.binary(max_size=60))
@example(b'fe80::1%"}')
@example(b"fe80::1%\x1b[2J")
@example(b"fe80::1%eth0 <b>")
def test_whatever_is_claimed_the_address_is_an_address_and_nothing_else(forwarded_for: bytes) -> None:
    address = client_address("10.0.0.1", forwarded_for, NETWORKS)
    assert ip_address(address)
    assert set(address) <= set("0123456789abcdef:."), "it goes into the log as it is"


@given(st.lists(st.ip_addresses(), max_size=5), st.ip_addresses())
def test_hops_that_a_client_made_up_never_count(made_up: list[Address], client: Address) -> None:
    plain = getattr(client, "ipv4_mapped", None) or client  # one spelling for each address
    assume(not any(plain in network for network in NETWORKS))
    forwarded_for = ",".join(map(str, [*made_up, client, "10.0.0.2"])).encode()
    assert ip_address(client_address("10.0.0.1", forwarded_for, NETWORKS)) == plain
