"""A key in the path, for clients that can send nothing but a base URL."""

from __future__ import annotations

import pytest

from .conftest import Connect, StartSite
from .messages import check_refusal, request
from .site import Keys, Site, basic


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return start_site(auth={"path_keys": True, "failures_per_minute": 0})


@pytest.mark.parametrize("target", ["/api/version", "/v1/models", "/api/tags?x=1", "/api/chat"])
def test_the_key_in_the_path_counts_and_goes_no_further(
    target: str, connect: Connect, keys: Keys, site: Site, named: str
) -> None:
    method, body = ("POST", b'{"model":"m"}') if target == "/api/chat" else ("GET", None)
    answer = connect().request(
        request(method, f"/~{keys.default}{target}", None, f"X-Request-Id: {named}", body=body)
    )
    assert answer.status == 200
    (exchange,) = site.upstream.requests
    assert exchange.target == target
    assert keys.default.encode() not in site.upstream.reached()
    line = site.logged(named)
    assert (line["auth"], line["key_name"], line["route"]) == ("path_key", "default", target.split("?")[0])


@pytest.mark.parametrize("target", ["", "/"])
def test_the_base_url_itself_is_the_root(target: str, connect: Connect, keys: Keys, site: Site) -> None:
    assert connect().request(request("GET", f"/~{keys.default}{target}")).status == 200
    assert site.upstream.requests[0].target == "/"


@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer ollama", "X-Api-Key: sk-123", "Authorization: Bearer", "Authorization: Digest a"],
)
def test_what_sdks_send_in_a_header_anyway_does_not_count_beside_it(
    header: str, connect: Connect, keys: Keys
) -> None:
    assert connect().request(request("GET", f"/~{keys.default}/api/version", None, header)).status == 200


def test_the_same_key_in_a_header_is_one_credential(connect: Connect, keys: Keys) -> None:
    answer = connect().request(request("GET", f"/~{keys.default}/api/version", keys.default))
    assert answer.status == 200


@pytest.mark.parametrize("form", ["Authorization: Bearer {}", "X-Api-Key: {}", "basic", "ssh", "jwt"])
def test_another_credential_of_ours_beside_it_is_refused_and_both_places_are_named(
    form: str, connect: Connect, keys: Keys, site: Site
) -> None:
    header = {
        "basic": f"Authorization: Basic {basic('u', keys.read)}",
        "ssh": "Authorization: AAAAC3NzaC1lZDI1NTE5:c2lnbmF0dXJl",
        "jwt": "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
    }.get(form, form.format(keys.read))
    answer = connect().request(request("GET", f"/~{keys.default}/api/version", None, header))
    check_refusal(answer, 400, "ambiguous_credentials")
    assert "the path" in answer.body.decode()
    assert header.partition(":")[0] in answer.body.decode()
    assert not site.upstream.requests


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("unknown", "invalid_credentials"),
        ("revoked", "invalid_credentials"),
        ("expired", "expired_credentials"),
    ],
)
def test_a_key_that_is_no_good_in_a_header_is_no_good_in_the_path(
    key: str, code: str, connect: Connect, keys: Keys
) -> None:
    answer = connect().request(request("GET", f"/~{getattr(keys, key)}/api/version"))
    check_refusal(answer, 401, code)


def test_an_empty_key_is_none(connect: Connect, keys: Keys) -> None:
    check_refusal(connect().request(request("GET", "/~/api/version")), 401, "missing_credentials")
    check_refusal(connect().request(request("GET", "/~/api/version", keys.default)), 404, "unknown_route")


@pytest.mark.parametrize("rest", ["/api/./version", "//api/version", "/api/%76ersion", "/api/version/"])
def test_behind_the_key_the_path_has_one_spelling_too(rest: str, connect: Connect, keys: Keys) -> None:
    check_refusal(connect().request(request("GET", f"/~{keys.default}{rest}")), 400, "malformed_request")


def test_two_keys_in_the_path_are_an_unknown_path(connect: Connect, keys: Keys) -> None:
    target = f"/~{keys.default}/~{keys.default}/api/version"
    check_refusal(connect().request(request("GET", target)), 404, "unknown_route")


def test_without_the_option_such_a_path_is_unknown_and_opens_nothing(
    start_site: StartSite, keys: Keys
) -> None:
    site = start_site()
    client = site.connect()
    target = f"/~{keys.default}/api/version"
    check_refusal(client.request(request("GET", target)), 401, "missing_credentials")
    check_refusal(client.request(request("GET", target, keys.default)), 404, "unknown_route")
    client.close()
    assert not site.upstream.requests
