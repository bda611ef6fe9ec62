"""X-Request-Id: one on every answer, the client's own where it is a plain token."""

from __future__ import annotations

import pytest

from .conftest import Connect
from .messages import request
from .site import Keys, Site
from .upstream import Upstream, message, respond


@pytest.mark.parametrize("offered", ["a", "trace-1.2_3~x!#$%&'*+^`|", "0" * 128])
def test_a_plain_request_id_is_taken_from_the_client(
    offered: str, connect: Connect, keys: Keys, site: Site
) -> None:
    answer = connect().request(request("GET", "/api/tags", keys.read, f"X-Request-Id: {offered}"))
    assert answer.header("x-request-id") == offered
    refused = connect().request(request("GET", "/api/tags", None, f"X-Request-Id: {offered}"))
    assert refused.header("x-request-id") == offered


@pytest.mark.parametrize(
    "offered", ["", "0" * 129, "a b", "a,b", 'a"b', "a/b", "<script>", "\xe4", "a;b", "a:b"]
)
def test_any_other_request_id_is_replaced(offered: str, connect: Connect, keys: Keys, site: Site) -> None:
    answer = connect().request(request("GET", "/api/tags", keys.read, f"X-Request-Id: {offered}"))
    assert answer.status == 200
    given = answer.header("x-request-id")
    assert given
    assert given != offered
    assert site.logged(given)["status"] == 200


def test_request_ids_of_our_own_are_all_different(connect: Connect, keys: Keys) -> None:
    client = connect()
    given = {
        client.request(request("GET", "/api/tags", keys.read)).header("x-request-id") for _ in range(100)
    }
    assert len(given) == 100


def test_a_request_id_of_the_upstream_does_not_replace_ours(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = respond(message("200 OK", [("X-Request-Id", "theirs")], b"{}"))
    answer = connect().request(request("GET", "/api/tags", keys.read, "X-Request-Id: mine"))
    assert answer.all("x-request-id") == ["mine"]
