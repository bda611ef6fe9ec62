"""Web pages in a real Chromium, over TLS: what they may do, what their scripts can read, and who may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ..wire.messages import request
from ..wire.site import ANSWER, Keys, Site
from ..wire.upstream import message, respond
from .chromium import Chromium
from .conftest import Pages

pytestmark = pytest.mark.xdist_group("browser")

MODEL = "smollm2:135m"
Requests = Callable[[], list[tuple[str, int]]]
BLOCKED = {"error": "TypeError: Failed to fetch"}
sdks = pytest.mark.parametrize("sdk", ["ollama", "openai", "anthropic"])


def url_of(site: Site) -> str:
    return f"https://localhost:{site.port}"


@pytest.fixture
def requests(listed: Site) -> Requests:
    """Method and status of each request since the test began, in the order in which they ended.

    Lines of the log come a moment later, so each look ends with a request of its own.
    """

    def lines_until_now() -> list[dict[str, Any]]:
        client = listed.connect()
        last = client.request(request("GET", "/")).header("x-request-id")
        client.close()
        assert last
        end = listed.log.index(listed.logged(last))
        return listed.log[: end + 1]

    before = len(lines_until_now())

    def since() -> list[tuple[str, int]]:
        lines = lines_until_now()[before:-1]
        return [(line["method"], line["status"]) for line in lines if "outcome" in line]

    return since


@sdks
def test_an_sdk_streams_after_a_preflight_that_holds_no_credential(
    sdk: str, chromium: Chromium, pages: Pages, listed: Site, keys: Keys, requests: Requests
) -> None:
    wanted = {"sdk": sdk, "base": url_of(listed), "key": keys.default, "model": MODEL}
    found = chromium.run(pages.allowed, "stream", **wanted)
    assert found["parts"] > 3
    assert found["text"]
    assert listed.logged(found["requestId"])["status"] == 200
    assert requests() == [("OPTIONS", 204), ("POST", 200)]


def test_a_key_in_x_api_key_is_allowed_too(
    chromium: Chromium, pages: Pages, listed: Site, keys: Keys
) -> None:
    wanted = {"base": url_of(listed), "key": keys.default, "model": MODEL, "asHeader": True}
    assert chromium.run(pages.allowed, "stream", sdk="anthropic", **wanted)["text"]


def test_a_key_in_the_path_is_allowed_too(chromium: Chromium, pages: Pages, listed: Site, keys: Keys) -> None:
    base = f"{url_of(listed)}/~{keys.default}"
    found = chromium.run(pages.allowed, "stream", sdk="ollama", base=base, key="", model=MODEL)
    assert found["text"]


def test_models_are_listed(chromium: Chromium, pages: Pages, listed: Site, keys: Keys) -> None:
    found = chromium.run(pages.allowed, "list", base=url_of(listed), key=keys.default)
    assert MODEL in found["ollama"]
    assert MODEL in found["openai"]


@sdks
def test_a_script_reads_why_its_key_is_refused(
    sdk: str, chromium: Chromium, pages: Pages, listed: Site, keys: Keys
) -> None:
    wanted = {"sdk": sdk, "base": url_of(listed), "key": keys.unknown, "model": MODEL}
    found = chromium.run(pages.allowed, "refused", **wanted)
    assert found["status"] == 401
    assert "these credentials are not valid: check the key" in found["message"]


def test_a_script_reads_that_its_key_may_not_delete(
    chromium: Chromium, pages: Pages, listed: Site, keys: Keys
) -> None:
    found = chromium.run(pages.allowed, "remove", base=url_of(listed), key=keys.default, model=MODEL)
    assert found["status"] == 403
    assert "'manage'" in found["message"]


def test_a_script_reads_the_fields_that_clients_act_on(
    chromium: Chromium, pages: Pages, open_to_all: Site, keys: Keys
) -> None:
    fields = [
        ("Content-Type", "application/json"),
        ("Retry-After", "7"),
        ("X-Request-Id", "not-ours"),
        ("Access-Control-Allow-Origin", "https://elsewhere.example"),
        ("X-Internal", "nobody is to read this"),
    ]
    open_to_all.upstream.answer = respond(message("503 Service Unavailable", fields, b'{"error":"busy"}'))
    options = {"headers": {"Authorization": f"Bearer {keys.default}", "X-Request-Id": "mine-1"}}
    found = chromium.run(pages.foreign, "fetch", url=f"{url_of(open_to_all)}/api/tags", options=options)
    open_to_all.upstream.forget()
    assert (found["status"], found["text"]) == (503, '{"error":"busy"}')
    assert found["headers"]["retry-after"] == "7"
    assert found["headers"]["x-request-id"] == "mine-1"
    assert "x-internal" not in found["headers"]


def test_a_stream_that_the_page_leaves_ends_at_ollama(
    chromium: Chromium, pages: Pages, open_to_all: Site, keys: Keys
) -> None:
    open_to_all.upstream.play("/api/chat")
    chromium.ask(pages.allowed, "leave", base=url_of(open_to_all), key=keys.default, model=MODEL)
    exchange = open_to_all.upstream.next()
    exchange.read_body()
    assert not exchange.all("origin")
    line = {"model": MODEL, "message": {"role": "assistant", "content": ANSWER}, "done": False}
    exchange.send(
        message(
            "200 OK",
            [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")],
            length=False,
        )
    )
    exchange.chunk(json.dumps(line).encode() + b"\n")
    assert chromium.answer() == ANSWER
    assert exchange.left_at(5)
    exchange.close()
    open_to_all.upstream.forget()
    assert open_to_all.wait_for_metric("ollama_proxy_client_disconnects_total", 1, phase="streaming") == 1


@sdks
def test_a_page_of_another_origin_is_blocked_before_its_key_is_sent(
    sdk: str, chromium: Chromium, pages: Pages, listed: Site, keys: Keys, requests: Requests
) -> None:
    wanted = {"sdk": sdk, "base": url_of(listed), "key": keys.default, "model": MODEL}
    found = chromium.run(pages.foreign, "refused", **wanted)
    assert not found.get("status")
    assert "Failed to fetch" in found["message"] or "Connection error" in found["message"]
    assert requests() == [("OPTIONS", 401)]


def test_not_even_an_open_route_is_read_from_there(
    chromium: Chromium, pages: Pages, listed: Site, requests: Requests
) -> None:
    assert chromium.run(pages.foreign, "fetch", url=f"{url_of(listed)}/", options={}) == BLOCKED
    assert requests() == [("GET", 200)]
    found = chromium.run(pages.allowed, "fetch", url=f"{url_of(listed)}/", options={})
    assert (found["status"], found["text"]) == (200, "Ollama is running")


def test_no_page_may_send_what_the_browser_holds_for_it(
    chromium: Chromium, pages: Pages, listed: Site, open_to_all: Site
) -> None:
    for site in (listed, open_to_all):
        options = {"credentials": "include"}
        assert chromium.run(pages.allowed, "fetch", url=f"{url_of(site)}/", options=options) == BLOCKED


@pytest.mark.parametrize(
    "options", [{"method": "PUT"}, {"headers": {"X-Forwarded-For": "10.0.0.1"}}], ids=["method", "header"]
)
def test_what_is_not_allowed_is_blocked_after_the_preflight(
    options: dict[str, Any], chromium: Chromium, pages: Pages, listed: Site, requests: Requests
) -> None:
    url = f"{url_of(listed)}/api/version"
    assert chromium.run(pages.allowed, "fetch", url=url, options=options) == BLOCKED
    assert requests() == [("OPTIONS", 204)]


def test_a_page_without_an_origin_may_where_all_may(
    chromium: Chromium, pages: Pages, listed: Site, open_to_all: Site, keys: Keys
) -> None:
    options = {"headers": {"Authorization": f"Bearer {keys.default}"}}
    asked = {"options": options, "url": f"{url_of(open_to_all)}/api/version"}
    assert chromium.run(pages.sandboxed, "fetch", **asked)["status"] == 200
    asked["url"] = f"{url_of(listed)}/api/version"
    assert chromium.run(pages.sandboxed, "fetch", **asked) == BLOCKED
