"""/metrics as Prometheus asks for it: in either format, and with the token where one is set."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from proxy.observe.metrics import Metrics
from proxy.ops.metrics import metrics_routes

TOKEN = "0123456789abcdef"

# What Prometheus 2.x and 3.x send, shortened.
OPENMETRICS_FIRST = (
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PLAIN = "text/plain;version=0.0.4"


def scrape(token: str | None = None, **headers: str) -> httpx.Response:
    registry = CollectorRegistry(auto_describe=False)
    metrics = Metrics("1.2.3")
    metrics.routes["/api/chat"].finished("POST", 200, 10, 20, 1.0)
    registry.register(metrics)
    app = FastAPI()
    app.include_router(metrics_routes(registry, lambda: token))

    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops") as client:
            return await client.get("/metrics", headers=sent)

    return asyncio.run(ask())


@pytest.mark.parametrize("accept", [PLAIN, "*/*", "text/html", ""])
def test_the_prometheus_format_is_what_anybody_gets(accept: str) -> None:
    answer = scrape(Accept=accept)
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]
    families = {family.name: family for family in read_prometheus(answer.text)}
    assert families["ollama_proxy_requests"].samples[0].value == 1


@pytest.mark.parametrize("accept", [OPENMETRICS_FIRST, "application/openmetrics-text"])
def test_openmetrics_is_what_those_who_ask_for_it_get(accept: str) -> None:
    answer = scrape(Accept=accept)
    assert answer.status_code == 200
    (content_type,) = answer.headers.get_list("content-type")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert answer.text.endswith("# EOF\n")
    families = {family.name: family for family in read_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert families["ollama_proxy_requests"].samples[0].value == 1


def test_without_a_token_nothing_is_asked_for() -> None:
    assert scrape().status_code == 200
    assert scrape(Authorization="Bearer whatever").status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_a_token_its_holder_is_let_in(scheme: str) -> None:
    # The name of a scheme is case-insensitive (RFC 9110 section 11.1).
    assert scrape(TOKEN, Authorization=f"{scheme} {TOKEN}").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer \xe4\xff", f"Bearer {TOKEN} {TOKEN}",
    ],
)  # fmt: skip
def test_with_a_token_nobody_else_sees_anything(authorization: str) -> None:
    answer = scrape(TOKEN, Authorization=authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "ollama_proxy_requests" not in answer.text
    assert TOKEN not in answer.text
    assert "ops.token_file" in answer.text


def test_with_a_token_no_header_is_not_enough() -> None:
    assert scrape(TOKEN).status_code == 401
    assert scrape(TOKEN, **{"X-Api-Key": TOKEN}).status_code == 401
