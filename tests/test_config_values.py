"""The texts of the configuration: durations, sizes, addresses, URLs."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.fault import BadValueError
from proxy.config.values import (
    Address,
    parse_address,
    parse_algorithm,
    parse_audience,
    parse_duration,
    parse_issuer,
    parse_jwks_url,
    parse_leeway,
    parse_network,
    parse_route,
    parse_size,
    parse_token_scope,
    parse_upstream_url,
)
from proxy.policy.routes import ROUTES, Scope, match


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("0s", 0.0), ("10s", 10.0), ("5m", 300.0), ("24h", 86400.0), ("90d", 7_776_000.0)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "1.5h",
        "-1s",
        "+1s",
        "1 s",
        "1S",
        "1w",
        "1s\n",
        "\uff11s",
        "1m30s",
        "36501d",
        "9" * 5000 + "d",
    ],
)
def test_another_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0B", 0), ("512B", 512), ("64KiB", 65536), ("10MiB", 10 << 20), ("1GiB", 1 << 30)]
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "1", "KiB", "1KB", "1kib", "1.5GiB", "-1B", "1 B", "1B ", "9" * 5000 + "B"]
)
def test_another_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        parse_size(text)


@given(
    st.integers(0, 999_999_999), st.sampled_from([("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)])
)
def test_every_duration_counts_its_unit(number: int, unit: tuple[str, int]) -> None:
    name, milliseconds = unit
    if number * milliseconds > 36500 * 86_400_000:
        with pytest.raises(BadValueError):
            parse_duration(f"{number}{name}")
    else:
        assert parse_duration(f"{number}{name}") == pytest.approx(number * milliseconds / 1000)


@given(st.integers(0, 999_999_999), st.sampled_from([("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30)]))
def test_every_size_counts_its_unit(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number << unit[1]


@given(st.text() | st.from_regex(r"[0-9]+ ?[a-zA-Z]{0,3}", fullmatch=True))
def test_any_text_is_a_duration_and_a_size_or_a_stated_fault(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(BadValueError):  # nothing else may be raised
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "authority", "host", "port"),
    [
        ("http://127.0.0.1:11434", b"127.0.0.1:11434", "127.0.0.1", 11434),
        ("http://127.0.0.1:11434/", b"127.0.0.1:11434", "127.0.0.1", 11434),
        ("HTTP://ollama", b"ollama", "ollama", 80),
        ("http://ollama:80", b"ollama", "ollama", 80),
        ("https://ollama", b"ollama", "ollama", 443),
        ("https://ollama:80", b"ollama:80", "ollama", 80),
        ("http://[::1]:11434", b"[::1]:11434", "::1", 11434),
        ("http://[::1]", b"[::1]", "::1", 80),
    ],
)
def test_the_upstream_is_addressed_by_its_own_authority(
    text: str, authority: bytes, host: str, port: int
) -> None:
    url = parse_upstream_url(text)
    assert (url.authority, url.host, url.port) == (authority, host, port)


@given(
    st.text(max_size=40)
    | st.from_regex(r"(https?://)?[\[\]:.@/?#%a-f0-9]{0,30}", fullmatch=True)
    | st.from_regex(r"[A-Z]{0,4} ?/[ -~]*", fullmatch=True)
)
def test_any_text_is_an_address_a_url_a_network_and_a_route_or_a_stated_fault(text: str) -> None:
    for parse in (
        parse_address,
        parse_upstream_url,
        parse_network,
        parse_route,
        parse_issuer,
        parse_jwks_url,
    ):
        with suppress(BadValueError):  # nothing else may be raised
            parse(text)


URLS = [
    "https://id.example.com",
    "https://ID.example.com/",
    "https://id.example.com:8443/realms/main/",
    "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
    "http://127.0.0.1:8080/realm",
    "http://[::1]",
    "http://localhost",
]


@pytest.mark.parametrize("text", URLS)
def test_an_issuer_stays_as_it_is_written_because_tokens_are_compared_with_it(text: str) -> None:
    assert parse_issuer(text) == parse_jwks_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("id.example.com", "//id.example.com", "ftp://id.example.com", "https://", "https:///realm"),
        *("http://id.example.com", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.example.com"),
        *("http://127.0.0.1.example.com", "http://127.1", "http://2130706433", "http://id@127.0.0.1"),
        *("https://me:pw@id.example.com", "https://id.example.com#x", "https://id.example.com:0"),
        *("https://id.example.com:x", "https://id example.com", "https://id.example.com\n", "https://[::1"),
    ],
)
def test_an_address_where_others_could_read_along_or_that_is_none_is_refused(text: str) -> None:
    for parse in (parse_issuer, parse_jwks_url):
        with pytest.raises(BadValueError):
            parse(text)


def test_an_issuer_has_no_query_and_the_address_of_its_keys_may_have_one() -> None:
    assert parse_jwks_url("https://id.example.com/keys?p=b2c") == "https://id.example.com/keys?p=b2c"
    assert parse_jwks_url("") == ""
    for text in ("https://id.example.com/?p=b2c", "https://id.example.com?", ""):
        with pytest.raises(BadValueError):
            parse_issuer(text)


def test_every_scope_but_admin_can_come_from_a_token() -> None:
    for scope in Scope:
        if scope is Scope.ADMIN:
            with pytest.raises(BadValueError, match='"admin" never comes from a JWT'):
                parse_token_scope(scope.value)
        else:
            assert parse_token_scope(scope.value) == scope.value
    for text in ("", "READ", " read", "read inference", "*"):
        with pytest.raises(BadValueError, match="is not a scope"):
            parse_token_scope(text)


@pytest.mark.parametrize("text", ["none", "None", "", "rs256", "RS256 ", "PS256", "EdDSA", "ES256K", "HS1"])
def test_no_other_algorithm_is_taken(text: str) -> None:
    with pytest.raises(BadValueError, match="is not one of the algorithms; write RS256, "):
        parse_algorithm(text)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("30s", 30), ("600s", 600), ("10m", 600)])
def test_clocks_may_differ_by_ten_minutes_at_most(text: str, seconds: int) -> None:
    assert parse_leeway(text) == seconds
    with pytest.raises(BadValueError, match="from 0s to 10m"):
        parse_leeway("601s")


def test_an_audience_is_any_text_but_none() -> None:
    assert parse_audience("api://größe") == "api://größe"
    with pytest.raises(BadValueError):
        parse_audience("")


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_reads_back_as_it_is_written(host: IPv4Address | IPv6Address, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            ":8443",
            "0.0.0.0",
            "0.0.0.0:",
            "0.0.0.0:x",
            "0.0.0.0:-1",
            "0.0.0.0:65536",
            "0.0.0.0:\u0661",
        ),
        *("::1:8443", "[::1]", "[::1]8443", "[::1:8443", "[127.0.0.1]:1", "[::1%eth0]:1", "[]:1"),
        *("127.1:1", "256.0.0.1:1", "1.2.3.4.5:1", "*:1", "a b:1", "host\n:1", "-host:1", "http://host:1"),
    ],
)
def test_another_text_is_no_address(text: str) -> None:
    with pytest.raises(BadValueError):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("LOCALHOST", True)),
        *(
            ("0.0.0.0", False),
            ("::", False),
            ("10.0.0.1", False),
            ("localhost.example", False),
            ("ollama", False),
        ),
    ],
)
def test_only_loopback_is_known_to_be_private_to_the_machine(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_every_row_without_braces_can_be_opened_and_no_other_text() -> None:
    for route in ROUTES:
        text = f"{route.method} {route.path}"
        if "{" in route.path:
            with pytest.raises(BadValueError, match="stands for many paths, which need a key"):
                parse_route(text)
        else:
            assert parse_route(text) == (route.method, route.path)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("GET /api/nope", 'did you mean "GET /api/ps" or "GET /api/tags" or "GET /api/version"?'),
        ("POST /api/delete", 'did you mean "DELETE /api/delete"?'),
        ("GET /api/tag", 'did you mean "GET /api/tags"'),
        ("GET /v1/models/", 'did you mean "GET /v1/models"'),
        ("GET /v1/models/llama3.2", 'did you mean "GET /v1/models"'),
        ("OPTIONS /zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "docs/routes.md lists the routes"),
    ],
)
def test_a_route_that_is_not_in_the_table_cannot_be_opened_and_near_ones_are_named(
    text: str, right: str
) -> None:
    with pytest.raises(BadValueError) as raised:
        parse_route(text)
    assert raised.value.wrong == f'"{text}" is not a route that can be opened'
    assert right in raised.value.right


@given(st.from_regex(r"[A-Z]{3,6} /[!-~]{0,20}", fullmatch=True))
def test_no_route_that_can_be_opened_tells_strangers_a_404_or_a_405(text: str) -> None:
    with suppress(BadValueError):
        method, path = parse_route(text)
        assert match(method, path.encode()) is not None
