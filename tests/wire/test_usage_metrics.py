"""What requests cost stands in metrics and log, to the token, whatever Ollama answers and clients send."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from tests.identity.tokens import AUDIENCE, claims, jwks, signer
from tests.observe.answers import RECORDED, Recorded
from tests.observe.test_usage import EXPECTED

from .conftest import Connect, Moved, StartSite, until
from .exchange import Exchange
from .messages import request
from .site import PROMPT, Keys, Site, make_key
from .upstream import Answer, message, respond

LISTED = ["smollm2:135m", "Llama3.2", "hf.co/Acme/Other:Q4"]
ISSUER = "https://issuer.example"
SUBJECT = "alice-of-the-jwt"
BODY = json.dumps({"model": "smollm2:135m", "prompt": PROMPT}).encode()
OPERATION = {
    "/api/generate": "text_completion",
    "/v1/completions": "text_completion",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    "/v1/embeddings": "embeddings",
}
CHUNKED = ("Transfer-Encoding", "chunked")
NDJSON = [("Content-Type", "application/x-ndjson"), CHUNKED]
SSE = [("Content-Type", "text/event-stream"), CHUNKED]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite, tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Site:
    file = tmp_path_factory.mktemp("issuer") / "jwks.json"
    file.write_bytes(jwks(signer().jwk()))
    site = start_site(auth={"jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(file)}]})
    site.upstream.models = LISTED
    client = site.connect()

    def known() -> bool:
        site.upstream.answer = pieces(b'{"model":"smollm2:135m","done":true}', 1000, "application/json")
        answer = client.request(request("POST", "/api/generate", keys.push, body=BODY))
        assert answer.status == 403
        found = make_up(site, client.request(request("POST", "/api/generate", keys.default, body=BODY)))
        return bool(found["model"] == "smollm2:135m")

    until(known, 5, "the models that Ollama lists are not known after two questions")
    client.close()
    return site


def make_up(site: Site, answer: Any) -> dict[str, Any]:
    """The line of the log about an answer."""
    return site.logged(answer.header("x-request-id") or "")


def pieces(body: bytes, size: int, content_type: str) -> Answer:
    """Answer with a body in pieces of this size, each of them a chunk and a packet of its own."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", [("Content-Type", content_type), CHUNKED], length=False))
        for start in range(0, len(body), size):
            exchange.chunk(body[start : start + size])
        exchange.send(b"0\r\n\r\n")

    return answer


def recorded(one: Recorded, size: int) -> Answer:
    return pieces(one.body, size, one.content_type.decode())


# Every recorded answer of a real Ollama


@pytest.mark.parametrize("name", RECORDED)
def test_the_log_tells_the_model_and_the_tokens_of_an_answer(
    name: str, connect: Connect, site: Site, keys: Keys
) -> None:
    one, client = RECORDED[name], connect()
    for size in (len(one.body), 1 if len(one.body) < 3000 else 701):
        site.upstream.answer = recorded(one, size)
        answer = client.request(request("POST", one.route.path, keys.default, body=BODY))
        assert answer.body == one.body, "not one byte is touched"
        line = make_up(site, answer)
        model = "smollm2:135m" if one.body.find(b'"model":"smollm2:135m"') >= 0 else "other"
        assert (line["model"], line["outcome"], line["status"]) == (model, "ok", 200)
        assert (line["input_tokens"], line["output_tokens"]) == EXPECTED[name][:2]


def test_the_metrics_are_the_sum_of_what_was_answered(connect: Connect, site: Site, keys: Keys) -> None:
    client, before = connect(), site.samples()
    tokens, requests, streams = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[str]()
    loads = 0.0
    for name, one in RECORDED.items():
        site.upstream.answer = recorded(one, 700)
        assert client.request(request("POST", one.route.path, keys.default, body=BODY)).status == 200
        model = "smollm2:135m" if one.body.find(b'"model":"smollm2:135m"') >= 0 else "other"
        read, written, _ = EXPECTED[name]
        tokens.update({(model, "input"): read or 0, (model, "output"): written or 0})
        requests[OPERATION.get(one.route.path, "chat"), model] += 1
        streams[model] += one.streamed
        loads += model == "smollm2:135m" and b',"load_duration":' in one.body

    after = site.samples()

    def grew(metric: str, **labels: str) -> float:
        return site.metric(metric, labels, after) - site.metric(metric, labels, before)

    for (model, kind), count in tokens.items():
        assert grew("ollama_proxy_tokens_total", key="default", model=model, type=kind) == count
        total = grew("gen_ai_client_token_usage_sum", gen_ai_request_model=model, gen_ai_token_type=kind)
        assert total == count
    for (operation, model), count in requests.items():
        labels = {
            "gen_ai_operation_name": operation,
            "gen_ai_provider_name": "ollama",
            "gen_ai_request_model": model,
        }
        name = "gen_ai_server_request_duration_seconds_count"
        assert grew(name, error_type="", **labels) == count, (operation, model)
    for model, count in streams.items():
        assert grew("gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model=model) == count
    assert grew("ollama_proxy_model_load_seconds_count", model="smollm2:135m") == loads > 5
    assert grew("ollama_proxy_upstream_failures_total") == 0


def test_times_are_those_that_were_waited(connect: Connect, site: Site, keys: Keys) -> None:
    lines = [b'{"model":"smollm2:135m","response":"a","done":false}\n'] * 4
    lines.append(
        b'{"model":"smollm2:135m","response":"","done":true,"load_duration":2000000000,"eval_count":5}\n'
    )

    def slowly(exchange: Exchange) -> None:
        exchange.read_body()
        time.sleep(0.15)
        exchange.send(message("200 OK", NDJSON, length=False))
        for line in lines:
            exchange.chunk(line)
            time.sleep(0.1)
        exchange.send(b"0\r\n\r\n")

    site.upstream.answer = slowly
    before = site.samples()
    connect().request(request("POST", "/api/generate", keys.default, body=BODY))
    after = site.samples()

    def grew(metric: str) -> float:
        return site.metric(metric, {}, after) - site.metric(metric, {}, before)

    assert 0.14 < grew("gen_ai_server_time_to_first_token_seconds_sum") < 0.4
    # From the first piece to the end, by the tokens after the first.
    assert 0.11 < grew("gen_ai_server_time_per_output_token_seconds_sum") < 0.2
    assert grew("gen_ai_server_time_per_output_token_seconds_count") == 1
    assert 0.6 < grew("gen_ai_server_request_duration_seconds_sum") < 1.2
    assert grew("ollama_proxy_model_load_seconds_sum") == pytest.approx(2.0)


def test_a_context_of_a_hundred_kilobytes_hides_no_number(connect: Connect, site: Site, keys: Keys) -> None:
    context = json.dumps(list(range(10_000, 30_000)), separators=(",", ":"))
    assert len(context) > 100_000
    end = (
        '{"model":"smollm2:135m","created_at":"2026-01-01T00:00:00Z","response":"","done":true,'
        f'"done_reason":"stop","context":{context},"total_duration":9,"load_duration":1,'
        '"prompt_eval_count":20000,"prompt_eval_duration":1,"eval_count":7,"eval_duration":1}\n'
    )
    body = b'{"model":"smollm2:135m","response":"a","done":false}\n' + end.encode()
    for size in (len(body), 1460):
        site.upstream.answer = pieces(body, size, "application/x-ndjson")
        answer = connect().request(request("POST", "/api/generate", keys.default, body=BODY))
        assert answer.body == body
        line = make_up(site, answer)
        assert (line["input_tokens"], line["output_tokens"], line["outcome"]) == (20_000, 7, "ok")


# Names


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("smollm2:135m", "smollm2:135m"),
        ("SmolLM2:135M", "smollm2:135m"),
        ("registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
        ("llama3.2", "llama3.2:latest"),
        ("hf.co/acme/other:q4", "hf.co/acme/other:q4"),
        ("smollm2", "other"),
        ("made-up-by-a-client", "other"),
        ('a"b\\', "other"),
        ("x" * 5000, "other"),
    ],
)
def test_a_model_has_the_name_that_ollama_lists_or_none_of_its_own(
    asked: str, told: str, connect: Connect, site: Site, keys: Keys
) -> None:
    answered = json.dumps({"model": asked, "done": True, "eval_count": 3}, separators=(",", ":")).encode()
    site.upstream.answer = pieces(answered, 1000, "application/json")
    client = connect()
    body = json.dumps({"model": asked}).encode()
    for key in (keys.default, keys.every):
        line = make_up(site, client.request(request("POST", "/api/chat", key, body=body)))
        assert line["model"] == told
    # And where Ollama does not have it.
    site.upstream.answer = respond(
        message("404 Not Found", [("Content-Type", "application/json")], b'{"error":"not found"}')
    )
    line = make_up(site, client.request(request("POST", "/api/chat", keys.default, body=body)))
    assert (line["model"], line["status"]) == ("other", 404)


def series(site: Site) -> set[str]:
    return {
        line.rpartition(" ")[0]
        for line in site.ops("/metrics")[1].decode().splitlines()
        if not line.startswith("#")
    }


def test_whatever_clients_send_the_metrics_do_not_grow(connect: Connect, site: Site, keys: Keys) -> None:
    client = connect()

    def send(number: int) -> None:
        name = f"made-up-{number}"
        answered = json.dumps({"model": name, "done": True}, separators=(",", ":")).encode()
        site.upstream.answer = pieces(answered, 1000, "application/json")
        body = json.dumps({"model": name}).encode()
        key = keys.default if number % 2 else keys.every
        client.request(request("POST", "/api/chat", key, f"X-Request-Id: {name}", body=body))
        client.request(request("POST", f"/api/made-up-{number}", key))
        client.request(request("GET", f"/v1/models/{name}", key))
        client.request(request("GET", "/api/tags", name))
        client.request(request("PROPFIND" if number % 2 else "MKCOL", "/api/tags", key))

    send(0)
    send(1)
    before = series(site)
    for number in range(2, 60):
        send(number)
    assert series(site) == before
    assert not any("made-up" in line for line in before)


def test_the_subject_of_a_token_is_no_label(connect: Connect, site: Site, named: str) -> None:
    now = int(time.time())
    times = {"exp": now + 300, "iat": now, "nbf": now}
    token = signer().token(claims(iss=ISSUER, sub=SUBJECT, **times)).decode()
    site.upstream.answer = recorded(RECORDED["chat-stream"], 500)
    fields = [f"Authorization: Bearer {token}", f"X-Request-Id: {named}"]
    before = site.samples()
    assert connect().request(request("POST", "/api/chat", None, *fields, body=BODY)).status == 200
    line = site.logged(named)
    assert (line["key_name"], line["auth"], line["model"]) == (SUBJECT, "jwt", "smollm2:135m")
    name, labels = "ollama_proxy_tokens_total", {"key": "jwt", "model": "smollm2:135m", "type": "input"}
    assert site.metric(name, labels) - site.metric(name, labels, before) == 15
    assert SUBJECT not in site.ops("/metrics")[1].decode()


def test_a_key_that_is_limited_to_models_is_counted_by_the_one_that_it_asks_for(
    connect: Connect, site: Site, keys: Keys, moved: Moved
) -> None:
    key = make_key(keys.store, "counted", "--model", "smollm2:*")
    keys.more.append(key)
    site.upstream.answer = recorded(RECORDED["chat-stream"], 500)
    client = connect()

    def asked(model: str) -> Any:
        body = json.dumps({"model": model}).encode()
        return client.request(request("POST", "/api/chat", key, body=body))

    until(lambda: asked("smollm2:135m").status == 200)
    moved(15, "ollama_proxy_tokens_total", key="counted", model="smollm2:135m", type="input")
    line = make_up(site, asked("llama3.2"))
    assert (line["code"], line["model"], line["input_tokens"]) == ("model_denied", "llama3.2:latest", None)


# What goes wrong

STREAMS = {
    "chat": ("/api/chat", NDJSON, b'{"model":"smollm2:135m","message":{"content":"a"},"done":false}\n'),
    "generate": ("/api/generate", NDJSON, b'{"model":"smollm2:135m","response":"a","done":false}\n'),
    "openai-chat": (
        *("/v1/chat/completions", SSE),
        b'data: {"id":"1","model":"smollm2:135m","choices":[{"delta":{"content":"a"}}]}\n\n',
    ),
    "openai-completions": (
        *("/v1/completions", SSE),
        b'data: {"id":"1","model":"smollm2:135m","choices":[{"text":"a"}]}\n\n',
    ),
    "anthropic": (
        *("/v1/messages", SSE),
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"text":"a"}}\n\n',
    ),
}
SILENT = ["openai-chat", "openai-completions", "anthropic"]


def broken_off(start: bytes, headers: list[tuple[str, str]]) -> Answer:
    """An answer that ends as if it were whole."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", headers, length=False))
        exchange.chunk(start)
        exchange.send(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("name", SILENT)
def test_a_stream_without_its_end_marker_is_a_failure_of_ollama(
    name: str, connect: Connect, site: Site, keys: Keys, moved: Moved
) -> None:
    path, headers, piece = STREAMS[name]
    site.upstream.answer = broken_off(piece * 9, headers)
    answer = connect().request(request("POST", path, keys.default, body=BODY))
    assert (answer.status, answer.torn, answer.body) == (200, None, piece * 9)
    line = make_up(site, answer)
    assert (line["outcome"], line["status"], line["code"]) == ("upstream_failed", 200, None)
    assert 7 <= line["output_tokens"] <= 9
    moved(1, "ollama_proxy_upstream_failures_total", kind="truncated")
    moved(1, "gen_ai_server_request_duration_seconds_count", error_type="truncated")
    moved(0, "ollama_proxy_denied_total")


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_an_error_line_at_the_end_is_a_failure_of_ollama(
    name: str, connect: Connect, site: Site, keys: Keys, moved: Moved
) -> None:
    path, headers, piece = STREAMS[name]
    site.upstream.answer = broken_off(piece * 9 + b'{"error":"an error was encountered"}\n', headers)
    line = make_up(site, connect().request(request("POST", path, keys.default, body=BODY)))
    assert (line["outcome"], line["model"]) == ("upstream_failed", "smollm2:135m")
    assert line["output_tokens"] == 9
    moved(1, "ollama_proxy_upstream_failures_total", kind="truncated")


def test_a_text_of_an_error_within_an_answer_is_none(connect: Connect, site: Site, keys: Keys) -> None:
    text = json.dumps('\n{"error":"not one"}\n').encode()
    body = b'{"model":"smollm2:135m","response":%s,"done":false}\n' % text
    body += b'{"model":"smollm2:135m","response":"","done":true,"eval_count":1}\n'
    site.upstream.answer = pieces(body, 13, "application/x-ndjson")
    line = make_up(site, connect().request(request("POST", "/api/generate", keys.default, body=BODY)))
    assert (line["outcome"], line["output_tokens"]) == ("ok", 1)


@pytest.mark.parametrize("name", STREAMS)
def test_a_torn_stream_is_counted_by_the_lines_that_came(
    name: str, connect: Connect, site: Site, keys: Keys, moved: Moved
) -> None:
    path, headers, piece = STREAMS[name]

    def tear(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", headers, length=False))
        for _ in range(9):
            exchange.chunk(piece)
        exchange.close()

    site.upstream.answer = tear
    answer = connect().request(request("POST", path, keys.default, body=BODY))
    assert answer.torn
    line = make_up(site, answer)
    assert line["outcome"] == "upstream_failed"
    assert 7 <= line["output_tokens"] <= 9
    moved(1, "ollama_proxy_upstream_failures_total")


@pytest.mark.parametrize("name", STREAMS)
def test_what_a_client_that_leaves_has_had_is_counted(
    name: str, connect: Connect, site: Site, keys: Keys, named: str, moved: Moved
) -> None:
    path, headers, piece = STREAMS[name]
    site.upstream.play("/")
    client = connect()
    client.send(request("POST", path, keys.default, f"X-Request-Id: {named}", body=BODY))
    exchange = site.upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", headers, length=False))
    head = None
    for _ in range(9):
        exchange.chunk(piece)
        head = head or client.head("POST")
        client.piece(head)
    client.close()
    line = site.logged(named)
    assert (line["outcome"], line["status"]) == ("client_closed", 499)
    assert 7 <= line["output_tokens"] <= 9
    moved(1, "gen_ai_server_request_duration_seconds_count", error_type="client_closed")
    moved(1, "ollama_proxy_client_disconnects_total", phase="streaming")


def test_an_answer_that_ends_before_its_first_byte_has_no_time_to_it(
    connect: Connect, site: Site, keys: Keys, moved: Moved
) -> None:
    before = site.metric("gen_ai_server_time_to_first_token_seconds_sum", {})

    def nothing(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", NDJSON, length=False))
        time.sleep(0.05)
        exchange.close()

    site.upstream.answer = nothing
    answer = connect().request(request("POST", "/api/chat", keys.default, body=BODY))
    line = make_up(site, answer)
    assert (line["outcome"], line["first_byte_ms"], line["output_tokens"]) == ("upstream_failed", None, None)
    moved(0, "gen_ai_server_time_to_first_token_seconds_count")
    assert site.metric("gen_ai_server_time_to_first_token_seconds_sum", {}) == before


ODD = {
    "empty": b"",
    "no-json": b"\xff\xfe\x00 not json at all\n",
    "deep": b"[" * 20_000,
    "huge-number": b'{"model":"smollm2:135m","done":true,"eval_count":1' + b"0" * 4000 + b"}\n",
    "negative": b'{"model":"smollm2:135m","done":true,"eval_count":-5,"prompt_eval_count":-1}\n',
    "nan": b'{"model":"smollm2:135m","done":true,"eval_count":NaN}\n',
    "surrogate": b'{"model":"\\ud800","done":true}\n',
    "text": b'{"model":"smollm2:135m","done":true,"eval_count":"5"}\n',
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_an_end_that_is_wrong_is_unknown_and_passed_on(
    path: str, name: str, connect: Connect, site: Site, keys: Keys
) -> None:
    client = connect()
    for content_type in ("application/x-ndjson", "text/event-stream", "application/json"):
        site.upstream.answer = pieces(ODD[name], 4096, content_type)
        answer = client.request(request("POST", path, keys.default, body=BODY))
        assert (answer.status, answer.body, answer.torn) == (200, ODD[name], None)
        line = make_up(site, answer)
        assert line["input_tokens"] in (None, 0)
        assert line["output_tokens"] in (None, 0, 1)


# Formats


def scrape(site: Site, accept: str) -> tuple[str, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{site.ops_port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_openmetrics_names_a_request_for_a_bucket(
    connect: Connect, site: Site, keys: Keys, named: str
) -> None:
    site.upstream.answer = recorded(RECORDED["chat-stream"], 500)
    connect().request(request("POST", "/api/chat", keys.default, f"X-Request-Id: {named}", body=BODY))
    content_type, text = scrape(site, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    exemplified = {
        sample.name
        for family in read_openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None and sample.exemplar.labels == {"request_id": named}
    }
    assert exemplified == {
        *("ollama_proxy_request_duration_seconds_bucket", "gen_ai_server_request_duration_seconds_bucket"),
        *(
            "gen_ai_server_time_to_first_token_seconds_bucket",
            "gen_ai_server_time_per_output_token_seconds_bucket",
        ),
    }
    content_type, plain = scrape(site, "text/plain")
    assert content_type.startswith("text/plain")
    assert named not in plain
    assert not re.search(r"\} \S+ # \{", plain)
    assert PROMPT not in text + plain


def test_a_request_id_of_any_length_leaves_openmetrics_readable(
    connect: Connect, site: Site, keys: Keys
) -> None:
    site.upstream.answer = recorded(RECORDED["chat-stream"], 500)
    for length in (1, 100, 101, 128):
        fields = [f"X-Request-Id: {'i' * length}"]
        assert connect().request(request("POST", "/api/chat", keys.default, *fields, body=BODY)).status == 200
    families = list(read_openmetrics(scrape(site, OPENMETRICS)[1]))
    ids = {
        len(sample.exemplar.labels["request_id"])
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert max(ids) <= 100
