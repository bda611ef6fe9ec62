"""Bodies that have to be judged: read whole within bounds, judged, and passed on as the bytes that came."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from .conftest import Connect, Moved, StartSite, until
from .messages import check_refusal, chunked, dialect_of, request
from .site import PROMPT, Keys, Site, keys_command, make_key

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite, limited: str, capped: str) -> Site:
    """The cloud closed, as it is by default, and small bounds."""
    return start_site(policy={"cloud": False, "max_guarded_body": "1MiB"})


@pytest.fixture(scope="module")
def open_site(start_site: StartSite, limited: str, cloudy: str) -> Site:
    return start_site(policy={"cloud": True, "max_guarded_body": "64MiB"})


@pytest.fixture(scope="module")
def limited(keys: Keys) -> str:
    """A key for one model."""
    scopes = [part for scope in ("read", "inference", "manage", "push") for part in ("--scope", scope)]
    key = make_key(keys.store, "limited", "--model", "good", *scopes)
    keys.more.append(key)
    return key


@pytest.fixture(scope="module")
def capped(keys: Keys) -> str:
    caps = ["--max-context", "4096", "--max-output-tokens", "100", "--max-keep-alive", "10m"]
    key = make_key(keys.store, "capped", *caps, "--min-keep-alive", "1m")
    keys.more.append(key)
    return key


@pytest.fixture(scope="module")
def cloudy(keys: Keys) -> str:
    key = make_key(keys.store, "cloudy", "--cloud", "--model", "good", "--model", "good:cloud")
    keys.more.append(key)
    return key


def body_of(**members: object) -> bytes:
    return json.dumps(members).encode()


BODY = (
    b' {"model" : "good", "messages":[{"role":"user","content":"%s \\u00fc cloud"}], "x":1e2}\n'
    % PROMPT.encode()
)


@pytest.mark.parametrize("split", [1, 7, 1000])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_judged_body_goes_on_as_the_bytes_that_came(
    framing: str, split: int, connect: Connect, limited: str, site: Site
) -> None:
    pieces = [BODY[start : start + split] for start in range(0, len(BODY), split)]
    client = connect()
    if framing == "chunks":
        client.send(request("POST", "/api/chat", limited, "Transfer-Encoding: chunked") + chunked(*pieces))
    else:
        client.send(request("POST", "/api/chat", limited, f"Content-Length: {len(BODY)}"))
        for piece in pieces:
            client.send(piece)
    assert client.response("POST").status == 200
    (exchange,) = site.upstream.requests
    assert exchange.body == BODY


def test_nothing_reaches_ollama_before_the_body_is_judged(connect: Connect, limited: str, site: Site) -> None:
    client = connect()
    client.send(request("POST", "/api/chat", limited, "Transfer-Encoding: chunked"))
    client.send(b"%x\r\n%s\r\n" % (len(BODY), BODY))
    time.sleep(0.3)
    assert not site.upstream.requests
    client.send(b"0\r\n\r\n")
    assert client.response("POST").status == 200
    assert site.upstream.requests[0].body == BODY


REFUSED = {
    "another model": ("/api/chat", body_of(model="bad"), "model_denied"),
    "another tag": ("/api/chat", body_of(model="good:7b"), "model_denied"),
    "a cloud model": ("/v1/chat/completions", body_of(model="good:cloud"), "model_denied"),
    "the copy's target": ("/api/copy", body_of(source="good", destination="other"), "model_denied"),
    "the copy's source": ("/api/copy", body_of(source="other", destination="good"), "model_denied"),
    "what is created from": ("/api/create", body_of(model="good", **{"from": "bad"}), "model_denied"),
    "what is created": ("/api/create", body_of(model="bad", **{"from": "good"}), "model_denied"),
    "another Ollama": ("/api/create", body_of(model="good", remote_host="https://x.example"), "cloud_denied"),
    "no TLS to the registry": ("/api/pull", body_of(model="good", insecure=True), "option_denied"),
    "two members": ("/api/show", b'{"model":"good","Model":"bad"}', "unreadable_body"),
    "another spelling": ("/v1/messages", b'{"MODEL":"good"}', "unreadable_body"),
    "something behind": ("/api/generate", b'{"model":"good"}{"model":"bad"}', "unreadable_body"),
    "no body": ("/api/generate", b"", "unreadable_body"),
    "two names": ("/api/show", body_of(model="good", name="bad"), "unreadable_body"),
    "transcriptions": ("/v1/audio/transcriptions", b"", "model_denied"),
}


@pytest.mark.parametrize(("path", "body", "code"), REFUSED.values(), ids=REFUSED)
def test_a_limited_key_gets_its_models_and_nothing_else(
    path: str, body: bytes, code: str, connect: Connect, limited: str, site: Site, named: str, moved: Moved
) -> None:
    client = connect()
    answer = client.request(request("POST", path, limited, f"X-Request-Id: {named}", body=body))
    check_refusal(answer, 400 if code == "unreadable_body" else 403, code, dialect_of(path))
    assert site.logged(named)["code"] == code
    moved(1, "ollama_proxy_denied_total", code=code)
    assert client.request(request("GET", "/api/version", limited)).status == 200, "the connection is kept"
    assert [exchange.target for exchange in site.upstream.requests] == ["/api/version"]


@pytest.mark.parametrize(
    ("name", "status"), [("good", 200), ("good%3Alatest", 200), ("bad", 403), ("good:7b", 403)]
)
def test_a_model_in_the_path_counts_too(
    name: str, status: int, connect: Connect, limited: str, site: Site
) -> None:
    assert connect().request(request("GET", f"/v1/models/{name}", limited)).status == status


CLOUD = {
    "chat": ("/api/chat", body_of(model="x:cloud"), "cloud_denied"),
    "in capitals": ("/v1/chat/completions", body_of(model="x:CLOUD"), "cloud_denied"),
    "with a tag": ("/v1/messages", body_of(model="x:7b-cloud"), "cloud_denied"),
    "in escapes": ("/api/generate", b'{"model":"x:\\u0063loud"}', "cloud_denied"),
    "with a blank": ("/api/embed", body_of(model="x:\u00a0cloud "), "cloud_denied"),
    "another Ollama": ("/api/create", body_of(model="x", remote_host="https://o.example"), "cloud_denied"),
    "a compressed body": ("/v1/chat/completions", b"\x28\xb5\x2f\xfd", "unreadable_body"),
    "in a form": (
        "/v1/audio/transcriptions",
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx:cloud\r\n--b--\r\n',
        "cloud_denied",
    ),
}


@pytest.mark.parametrize(("path", "body", "code"), CLOUD.values(), ids=CLOUD)
def test_a_closed_cloud_is_closed_to_every_key(
    path: str, body: bytes, code: str, connect: Connect, keys: Keys, site: Site
) -> None:
    more = ["Content-Encoding: zstd"] if body.startswith(b"\x28") else []
    if "audio" in path:
        more = ["Content-Type: multipart/form-data; boundary=b"]
    answer = connect().request(request("POST", path, keys.every, *more, body=body))
    check_refusal(answer, 400 if code == "unreadable_body" else 403, code, dialect_of(path))
    assert not site.upstream.requests


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_web_tool_needs_the_scope_account(path: str, connect: Connect, keys: Keys, site: Site) -> None:
    body = body_of(model="x", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    client = connect()
    answer = client.request(request("POST", path, keys.default, body=body))
    check_refusal(answer, 403, "scope_denied", dialect_of(path))
    assert "'account'" in answer.body.decode()
    answer = client.request(request("POST", path, keys.every, body=body))
    check_refusal(answer, 403, "cloud_denied", dialect_of(path))
    ours = body_of(model="x", tools=[{"type": "function", "name": "web_search"}])
    assert client.request(request("POST", path, keys.default, body=ours)).status == 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_where_the_cloud_is_open_the_scope_is_enough_for_a_web_tool(
    path: str, open_site: Site, keys: Keys
) -> None:
    account = make_key(
        keys.store, f"searcher{path.replace('/', '-')}", "--scope", "account", "--scope", "inference"
    )
    keys.more.append(account)
    until(lambda: status_of(open_site, account) == 403, 5)  # known, and without the scope read
    body = body_of(model="x", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    client = open_site.connect()
    assert client.request(request("POST", path, account, body=body)).status == 200
    client.close()


@pytest.mark.parametrize("path", ["/api/me", "/api/experimental/web_search"])
def test_a_closed_cloud_closes_the_servers_account(
    path: str, connect: Connect, keys: Keys, site: Site
) -> None:
    check_refusal(connect().request(request("POST", path, keys.account)), 403, "cloud_denied")
    check_refusal(connect().request(request("POST", path, keys.default)), 403, "scope_denied")
    assert not site.upstream.requests


def test_no_query_goes_to_the_servers_account(open_site: Site, keys: Keys) -> None:
    open_site.upstream.forget()
    client = open_site.connect()
    raw = request("POST", "/api/experimental/web_search?api_key=secret", keys.account, body=b"{}")
    assert client.request(raw).status == 200
    client.close()
    assert open_site.upstream.requests[0].target == "/api/experimental/web_search"


def test_words_of_the_cloud_in_a_prompt_harm_nobody(connect: Connect, keys: Keys, site: Site) -> None:
    body = body_of(model="x", prompt="Is it a cloud: or a \u00fcber:cloud? web_search it!")
    client = connect()
    for path in ("/api/generate", "/v1/messages", "/v1/responses"):
        assert client.request(request("POST", path, keys.default, body=body)).status == 200
    assert [exchange.body for exchange in site.upstream.requests] == [body] * 3


def test_where_only_the_cloud_is_forbidden_a_body_without_its_words_is_not_parsed(
    connect: Connect, keys: Keys, site: Site
) -> None:
    body = b'{"model":"x","MODEL":"y"} and more'
    assert connect().request(request("POST", "/api/chat", keys.default, body=body)).status == 200
    assert site.upstream.requests[0].body == body


def test_an_open_cloud_needs_the_grant_and_the_model(
    open_site: Site, cloudy: str, keys: Keys, limited: str
) -> None:
    def code(key: str, model: str) -> str | None:
        client = open_site.connect()
        answer = client.request(request("POST", "/api/chat", key, body=body_of(model=model)))
        client.close()
        return None if answer.status == 200 else json.loads(answer.body)["code"]

    assert code(cloudy, "good:cloud") is None
    assert code(cloudy, "other:cloud") == "model_denied"
    assert code(keys.default, "good:cloud") == "cloud_denied"
    assert code(limited, "good:cloud") == "model_denied"
    assert code(keys.every, "any:cloud") is None


def test_nothing_of_a_clients_credentials_goes_to_the_cloud(open_site: Site, cloudy: str) -> None:
    client = open_site.connect()
    open_site.upstream.forget()
    fields = ["Cookie: session=1", "Api-Key: a", "X-Goog-Api-Key: b", "X-Auth-Token: c", "X-Access-Token: d"]
    raw = request(
        "POST", f"/api/chat?key={cloudy}&token=t", cloudy, *fields, body=body_of(model="good:cloud")
    )
    assert client.request(raw).status == 200
    client.close()
    (exchange,) = open_site.upstream.requests
    assert exchange.target == "/api/chat"
    assert {name.lower() for name, _ in exchange.headers} == {"host", "content-length"}


OPTIONS = {
    "context": ("/api/chat", {"options": {"num_ctx": 4097, "num_predict": 1}}, "4096"),
    "context as a fraction": ("/api/chat", {"options": {"num_ctx": 1.5, "num_predict": 1}}, "4096"),
    "answer": ("/v1/chat/completions", {"max_tokens": 101}, "100"),
    "no limit of the answer": ("/v1/messages", {}, "100"),
    "for ever": ("/api/generate", {"options": {"num_predict": 5}, "keep_alive": -1}, "600"),
    "unload": ("/api/generate", {"options": {"num_predict": 5}, "keep_alive": 0}, "60"),
    "processor": ("/api/generate", {"options": {"num_predict": 5, "num_gpu": 0}}, "num_gpu"),
    "threads": ("/api/generate", {"options": {"num_predict": 5, "num_thread": 1}}, "num_thread"),
    "the template": ("/api/chat", {"options": {"num_predict": 5}, "_debug_render_only": True}, "_debug"),
}


@pytest.mark.parametrize(("path", "members", "said"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_beyond_the_cap_is_refused_and_the_cap_is_told(
    path: str, members: dict[str, object], said: str, connect: Connect, capped: str, site: Site
) -> None:
    answer = connect().request(request("POST", path, capped, body=body_of(model="m", **members)))
    check_refusal(answer, 403, "option_denied", dialect_of(path))
    assert said in answer.body.decode()
    assert not site.upstream.requests


def test_options_within_the_caps_pass(connect: Connect, capped: str, site: Site) -> None:
    options = {"num_ctx": 4096, "num_predict": 100}
    body = body_of(model="m", options=options, keep_alive="5m")
    assert connect().request(request("POST", "/api/chat", capped, body=body)).status == 200


# Bounds


@pytest.mark.parametrize("framing", ["length", "chunks", "expect"])
def test_a_body_over_the_bound_is_refused(framing: str, connect: Connect, limited: str, site: Site) -> None:
    client = connect()
    if framing == "chunks":
        client.send(request("POST", "/api/chat", limited, "Transfer-Encoding: chunked"))
        piece = b"%x\r\n%s\r\n" % (MIB // 2, b" " * (MIB // 2))
        client.send(piece + piece + piece)
    else:
        more = ["Expect: 100-continue"] if framing == "expect" else []
        client.send(request("POST", "/api/chat", limited, *more, f"Content-Length: {MIB + 1}"))
    check_refusal(client.response("POST"), 413, "body_too_large")
    assert not site.upstream.requests


def test_a_body_as_large_as_the_bound_is_served(connect: Connect, limited: str, site: Site) -> None:
    body = body_of(model="good", prompt="a" * (MIB - 31))
    assert len(body) <= MIB
    assert connect().request(request("POST", "/api/generate", limited, body=body)).status == 200
    assert site.upstream.requests[0].body == body


def test_one_key_cannot_hold_all_the_room_and_it_comes_back(site: Site, limited: str, capped: str) -> None:
    clients = [site.connect() for _ in range(8)]
    begun = body_of(model="good")[:-1] + b"," + b" " * (MIB - 1000)
    for client in clients:
        client.send(request("POST", "/api/chat", limited, f"Content-Length: {len(begun) + 7}"))
    for client in clients:
        client.send(begun)
    time.sleep(0.5)

    # Somebody else's body is served all the while, and so is a small one of the same key.
    options = {"num_predict": 1}
    for key, body in (
        (capped, body_of(model="m", options=options, messages=["a" * (MIB // 2)])),
        (limited, body_of(model="good")),
    ):
        other = site.connect()
        other.send(request("POST", "/api/chat", key, f"Content-Length: {len(body)}"))
        time.sleep(0.05)
        other.send(body)
        assert other.response("POST").status == 200
        other.close()

    answers = []
    for client in clients:
        client.send(b'"a":0 }')
        answers.append(client.response("POST"))
    refused = [answer for answer in answers if answer.status != 200]
    assert 5 <= len(refused) <= 7
    for answer in refused:
        check_refusal(answer, 503, "queue_full")
        assert answer.header("retry-after")
    client = site.connect()
    whole = begun + b'"a":0 }'
    assert client.request(request("POST", "/api/chat", limited, body=whole)).status == 200
    for one in (client, *clients):
        one.close()


def test_the_room_comes_back_as_soon_as_ollama_has_the_body(site: Site, limited: str) -> None:
    """Not only when it answers, which may take minutes."""
    site.upstream.play("/api/chat")
    body = body_of(model="good")[:-1] + b"," + b" " * (MIB - 1000) + b'"a":0}'
    clients = []
    for _ in range(6):
        client = site.connect()
        client.send(request("POST", "/api/chat", limited, body=body))
        site.upstream.next().read_body()
        clients.append(client)
    for client in clients:
        client.close()


def test_a_client_that_waits_for_100_continue_gets_it(connect: Connect, limited: str, site: Site) -> None:
    client = connect()
    client.send(request("POST", "/api/chat", limited, "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
    assert client.head("POST").status == 100
    client.send(BODY)
    assert client.response("POST").status == 200


def test_a_client_that_leaves_before_its_body_is_there_is_499(
    connect: Connect, limited: str, site: Site, named: str, moved: Moved
) -> None:
    client = connect()
    client.send(
        request("POST", "/api/chat", limited, f"X-Request-Id: {named}", f"Content-Length: {len(BODY)}")
    )
    client.send(BODY[:-5])
    time.sleep(0.1)
    client.close()
    line = site.logged(named)
    assert (line["status"], line["outcome"]) == (499, "client_closed")
    assert line["received_bytes"] == len(BODY) - 5
    moved(1, "ollama_proxy_client_disconnects_total", phase="upload")
    assert not site.upstream.requests


def test_a_body_that_breaks_while_it_is_read_is_refused(connect: Connect, limited: str, site: Site) -> None:
    client = connect()
    client.send(request("POST", "/api/chat", limited, "Transfer-Encoding: chunked"))
    client.send(b'5\r\n{"mod\r\n')
    time.sleep(0.1)
    client.send(b"xyz\r\n")
    check_refusal(client.response("POST"), 400, "malformed_request")


def test_a_revoked_key_ends_the_reading_of_its_body(connect: Connect, keys: Keys, site: Site) -> None:
    key = make_key(keys.store, "leaves early", "--model", "good")
    keys.more.append(key)
    until(lambda: status_of(site, key) == 200, 5)
    client = connect()
    client.send(request("POST", "/api/chat", key, f"Content-Length: {len(BODY)}") + BODY[:-5])
    time.sleep(0.1)
    keys_command(keys.store, "revoke", key.split("_")[1])
    check_refusal(client.response("POST"), 401, "invalid_credentials")


def status_of(site: Site, key: str) -> int:
    client = site.connect()
    status = client.request(request("GET", "/api/version", key)).status
    client.close()
    return status


# Large bodies


def test_a_large_body_is_judged_like_a_small_one(open_site: Site, limited: str) -> None:
    open_site.upstream.forget()
    image = "A" * (10 * MIB)
    for model, status in (("good", 200), ("bad", 403)):
        client = open_site.connect()
        body = body_of(model=model, prompt="x", images=[image])
        answer = client.request(request("POST", "/api/generate", limited, body=body))
        assert answer.status == status
        client.close()
    (exchange,) = open_site.upstream.requests
    assert exchange.body == body_of(model="good", prompt="x", images=[image])


def test_a_large_body_of_nothing_but_brackets_costs_its_sender_alone(open_site: Site, limited: str) -> None:
    body = b'{"model":"good","x":[' + b"[]," * (20 * MIB // 3) + b"0]}"
    client = open_site.connect(timeout=60)
    answer = client.request(request("POST", "/api/generate", limited, body=body))
    client.close()
    assert answer.status in (200, 413)
    assert open_site.rss() < 400 * MIB
    assert status_of(open_site, limited) == 200


def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(open_site: Site, limited: str) -> None:
    body = b'{"model":"good","x":[' + b"1.5," * (9 * MIB) + b"0]}"
    client = open_site.connect(timeout=60)
    check_refusal(client.request(request("POST", "/api/generate", limited, body=body)), 413, "body_too_large")
    client.close()


def test_a_short_body_does_not_wait_for_long_ones(open_site: Site, limited: str) -> None:
    long = b'{"model":"bad","x":[' + b"1.5," * (7 * MIB) + b"0]}"
    short = body_of(model="bad", images=["A" * 100_000])
    clients = [open_site.connect(timeout=120) for _ in range(3)]
    for client in clients:
        client.send(request("POST", "/api/generate", limited, body=long))
    time.sleep(0.5)
    client = open_site.connect()
    started = time.monotonic()
    assert client.request(request("POST", "/api/generate", limited, body=short)).status == 403
    assert time.monotonic() - started < 1
    client.close()
    for one in clients:
        one.close()


def test_a_short_body_of_many_small_values_is_not_parsed_where_everybody_waits(
    open_site: Site, limited: str
) -> None:
    for child in children(open_site):
        os.kill(child, signal.SIGKILL)
    until(lambda: not children(open_site))
    tools = b",".join([b'{"\xc3\xa9":0}'] * 5000)
    raw = request("POST", "/v1/messages", limited, body=b'{"model":"bad","tools":[' + tools + b"]}")
    assert len(raw) < 64 * 1024
    client = open_site.connect()
    assert client.request(raw).status == 403
    client.close()
    assert children(open_site), "a process has read it"


def test_the_process_that_judges_is_replaced_when_it_dies(open_site: Site, limited: str) -> None:
    body = body_of(model="bad", images=["A" * (2 * MIB)])

    def ask() -> int:
        client = open_site.connect()
        status = client.request(request("POST", "/api/generate", limited, body=body)).status
        client.close()
        return status

    assert ask() == 403
    before = children(open_site)
    for child in before:
        os.kill(child, signal.SIGKILL)
    time.sleep(0.2)
    assert ask() == 403
    assert not set(children(open_site)) & set(before)


def children(site: Site) -> list[int]:
    tasks = Path(f"/proc/{site.process.pid}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def test_neighbours_do_not_wait_for_large_bodies(open_site: Site, limited: str, keys: Keys) -> None:
    """The bound of the benchmark is 20 ms at p99; this one leaves room for a busy machine."""
    body = body_of(model="bad", images=["A" * (10 * MIB)])
    raw = request("POST", "/api/generate", limited, body=body)
    stop = threading.Event()

    def pour() -> None:
        while not stop.is_set():
            client = open_site.connect(timeout=60)
            assert client.request(raw).status == 403
            client.close()

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        client = open_site.connect()
        waits = []
        for _ in range(200):
            started = time.monotonic()
            assert client.request(request("GET", "/api/version", keys.default)).status == 200
            waits.append(time.monotonic() - started)
            time.sleep(0.005)
        client.close()
    finally:
        stop.set()
        pouring.join()
    assert sorted(waits)[197] < 0.15


def test_a_client_that_leaves_while_its_body_is_judged_is_499(
    open_site: Site, limited: str, named: str
) -> None:
    body = b'{"model":"good","x":[' + b"[]," * (5 * MIB) + b"0]}"
    client = open_site.connect(timeout=60)
    client.send(request("POST", "/api/generate", limited, f"X-Request-Id: {named}", body=body))
    client.close()
    assert open_site.logged(named, 20)["status"] == 499
    assert status_of(open_site, limited) == 200
