"""Secrets and prompts are put everywhere, and found nowhere: in no log, metric, store or error.

Each thing that must not be told holds the word of `WORD`, or is in `Sent.secrets`.
"""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.identity.tokens import AUDIENCE, claims, jwks, signer

from . import site as sites
from .client import Client, MalformedError, TornError
from .conftest import until
from .exchange import Exchange
from .messages import request
from .site import PROMPT, Keys, Site, basic, toml
from .upstream import message

WORD = "canary"
TOKEN = "canary-ops-token-0f6a"
ISSUER = "https://issuer.example"

FAILS_INSIDE = """
import sys
sys.argv.pop()
import proxy.gateway
guard = proxy.gateway.guard
def fail(identity, route, policy):
    if route.path == "/api/show":
        raise LookupError("a fault within")
    return guard(identity, route, policy)
proxy.gateway.guard = fail
from proxy.__main__ import main
main()
"""
"""Runs the proxy with a fault in it, for its traceback."""

SAID = json.dumps([{"role": "user", "content": f"canary-text {PROMPT}"}])
BODIES = {
    "/api/generate": '{"model":"m","prompt":"canary-prompt","system":"canary-system","suffix":"canary"}',
    "/api/chat": f'{{"model":"m","messages":{SAID},"tools":[{{"name":"canary-tool"}}]}}',
    "/api/embed": '{"model":"m","input":["canary-input"]}',
    "/api/embeddings": '{"model":"m","prompt":"canary-input"}',
    "/v1/chat/completions": f'{{"model":"m","messages":{SAID},"user":"canary-user","stream":true}}',
    "/v1/completions": '{"model":"m","prompt":"canary-prompt"}',
    "/v1/embeddings": '{"model":"canary-model","input":"canary-input"}',
    "/v1/responses": '{"model":"m","input":"canary-input","metadata":{"canary":"canary"}}',
    "/v1/messages": f'{{"model":"m","system":"canary-system","messages":{SAID}}}',
    "/api/create": '{"model":"m","from":"x","system":"canary-system","template":"canary-template"}',
    "/api/show": '{"model":"m","system":"canary-system"}',
    "/api/pull": '{"model":"canary-model","username":"canary","password":"canary-password"}',
}
UNREADABLE = [
    '{"model":"canary-model","model":"canary:cloud","prompt":"canary-prompt"}',
    '{"model":"m:cloud","prompt":"canary-prompt"',
    '["canary:cloud"]',
    '{"Model":"m:cloud","prompt":"canary"}',
    '{"model":"m","prompt":"canary \\ud800 cloud"}',
    "canary cloud \x00 \xff",
]
JSON = ("Content-Type", "application/json")
NDJSON = ("Content-Type", "application/x-ndjson")
SSE = ("Content-Type", "text/event-stream")
CHUNKED = ("Transfer-Encoding", "chunked")
STREAM = b'{"model":"canary-model","response":"canary-answer","done":false}\n'
EVENT = b'data: {"model":"canary-model","choices":[{"delta":{"content":"canary-answer"}}]}\n\n'

# What Ollama says: whole, in a stream, an error that repeats the request, and what is no HTTP at all.
ANSWERS: dict[str, tuple[bytes, bool]] = {
    "whole": (message("200 OK", [JSON, ("X-Note", "canary-header")], b'{"response":"canary-answer"}'), False),
    "error": (message("400 Bad Request", [JSON], b'{"error":"bad: canary-prompt"}'), False),
    "failure": (message("500 canary-reason", [JSON], b'{"error":"canary-prompt"}'), False),
    "late-error": (message("200 OK", [NDJSON], STREAM + b'{"error":"canary-prompt"}\n'), False),
    "silent-end": (message("200 OK", [SSE], EVENT), False),
    "torn": (message("200 OK", [NDJSON, CHUNKED], b"40\r\n" + STREAM, length=False), True),
    "nothing": (b"", True),
    "no-http": (b"canary-answer is no status line\r\n\r\n", True),
    "bad-chunk": (message("200 OK", [NDJSON, CHUNKED], b"canary\r\n" + STREAM, length=False), True),
    "bad-field": (b"HTTP/1.1 200 OK\r\ncanary field: canary\x00\r\n\r\ncanary", True),
}

GARBAGE = [
    b"canary / nothing\r\n\r\n",
    b"CANARY /canary HTTP/1.1\r\nHost: canary\r\n\r\n",
    b"GET /canary HTTP/1.1\r\nHost: localhost\r\ncanary field: canary\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"canary" * 8000 + b"\r\n\r\n",
    b"GET /" + b"canary" * 8000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://canary:canary@localhost/canary HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: canary\r\n\r\ncanary",
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: canary\r\n\r\ncanary",
    b"CONNECT canary:443 HTTP/1.1\r\nHost: canary\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: canary\r\nConnection: upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: canary\r\n\r\n",
]
FIELDS = [
    *("Cookie: session=canary-cookie", "Proxy-Authorization: Basic canary", "User-Agent: canary-agent"),
    *("Referer: https://page.example/?canary", "X-Custom: canary-field", "X-Request-Id: canary id"),
    *("X-Forwarded-For: canary", "Traceparent: canary", "Accept-Language: canary"),
]
SECRETS_OUT_OF_PLACE: dict[str, dict[str, Any]] = {
    "ops": {"token_file": "canary-token-itself", "token": "canary-token"},
    "upstream": {"url": "http://user:canary-password@127.0.0.1:11434"},
    "store": {"url": "postgresql://user:canary-password@db/keys"},
    "auth": {
        "jwt": [
            {"issuer": "https://user:canary@issuer.example", "audience": "a", "secret_file": "canary-secret"},
            {"issuer": "https://two.example", "audience": "a", "jwks_url": "http://canary.example/canary"},
        ]
    },
}


@dataclass
class Sent:
    """``secrets`` are texts of which nothing may be told, ``refusals`` what the proxy itself answered."""

    keys: Keys
    secrets: set[str] = field(default_factory=set)
    refusals: list[bytes] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def ask(self, site: Site, raw: bytes, method: str = "GET", own: bool = True) -> int:
        """Send it, and keep what is answered where the proxy itself does; 0 where nothing came."""
        client = site.connect()
        with suppress(TornError, MalformedError, OSError):
            answer = client.request(raw, method)
            if own:
                head = "\n".join(f"{name}: {value}" for name, value in answer.headers)
                self.refusals.append(head.encode("latin-1") + answer.body)
            self.statuses.add(answer.status)
            client.close()
            return answer.status
        client.close()
        return 0


@pytest.fixture(scope="module")
def sent(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Keys in a store of this module's own, in whose files nothing of other tests stands."""
    store = tmp_path_factory.mktemp("store") / "keys.db"
    with closing(sqlite3.connect(keys.store)) as shared, closing(sqlite3.connect(store)) as own:
        shared.backup(own)
    own_keys = replace(keys, store=store)
    return Sent(own_keys, set(own_keys.secrets()) | {TOKEN})


@pytest.fixture(scope="module")
def site(sent: Sent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything is on, at its most talkative, and everything has been sent."""
    folder = tmp_path_factory.mktemp("site")
    authority = Authority()
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "jwks.json").write_bytes(jwks(signer().jwk()))
    (folder / "token").write_text(TOKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sites, "WITH_CLOCK", FAILS_INSIDE)
        site = Site(
            folder / "proxy",
            sent.keys,
            clock=0.0,
            wait_for="/healthz",
            tls={"client_ca": str(folder / "ca.crt"), "client_auth": "optional"},
            ops={"token_file": str(folder / "token")},
            auth={
                "path_keys": True,
                "jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(folder / "jwks.json")}],
            },
            cors={"allow_origins": ["https://page.example"]},
            log={"level": "debug"},
        )
    until(lambda: site.ops("/readyz")[0] == 200, 10)
    send_credentials(site, sent)
    send_bodies(site, sent)
    send_answers(site, sent)
    send_garbage(site, sent)
    show_certificates(site, sent, authority, folder)
    change_configuration(site)
    yield site
    site.upstream.stop()
    site.process.kill()
    site.exit_code()


def send_credentials(site: Site, sent: Sent) -> None:
    """Good and bad ones, in every place, on every kind of route."""
    keys, now = sent.keys, int(time.time())
    times = {"exp": now + 300, "iat": now, "nbf": now}
    tokens = [
        signer().token(claims(**told)).decode()
        for told in (
            {"iss": ISSUER, "email": "canary@example.com", **times},
            {"iss": ISSUER, "exp": 1},
            {"iss": "https://canary.example", "sub": "canary", **times},
        )
    ]
    tokens.append(tokens[0][:-4] + "AAAA")
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
    signature = f"{blob}:{base64.b64encode(bytes(range(64))).decode()}"
    bad = ["canary-key", keys.default[:-1] + "~", keys.unknown, "oap_canary0000_canary"]
    sent.secrets |= {part for token in tokens for part in token.split(".")[1:]} | set(signature.split(":"))
    sent.secrets |= {basic("canary", key) for key in (keys.default, *bad)}
    good = [keys.default, keys.revoked, keys.expired]
    for key in (*good, *bad):
        for credential in (
            f"X-Api-Key: {key}",
            f"Authorization: Bearer {key}",
            f"Authorization: Basic {basic('canary', key)}",
            f"Authorization: canary {key}",
        ):
            sent.ask(site, request("GET", "/api/version?canary=1", None, credential), own=key not in good)
        for path in (
            f"/~{key}/api/version",
            f"/~{key}/api/canary",
            f"/~{key}",
            f"/{key}",
            f"/api/tags?key={key}",
        ):
            sent.ask(site, request("GET", path), own=True)
        for second in ("canary-key", keys.read):
            sent.ask(site, request("GET", "/api/version", key, f"Authorization: Bearer {second}"))
    for token in tokens:
        sent.ask(site, request("GET", "/api/version", None, f"Authorization: Bearer {token}"))
        sent.ask(site, request("GET", f"/api/version?token={token}"))
    sent.ask(site, request("GET", f"/api/version?ts={now}", None, f"Authorization: {signature}"))
    sent.ask(site, request("GET", "/api/version?ts=canary", None, f"Authorization: {signature}"))
    for given in (TOKEN, "canary-wrong-token"):
        asked = urllib.request.Request(f"http://127.0.0.1:{site.ops_port}/metrics?canary")
        asked.add_header("Authorization", f"Bearer {given}")
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(asked, timeout=5).read()


def send_bodies(site: Site, sent: Sent) -> None:
    """Prompts in every dialect: allowed, denied, unreadable, and with a fault of the proxy's own."""
    for path, body in BODIES.items():
        raw = body.encode()
        for key in (sent.keys.every, sent.keys.inference, sent.keys.read):
            sent.ask(site, request("POST", f"{path}?canary", key, *FIELDS, body=raw), own=False)
        sent.ask(site, request("POST", path, None, "Origin: https://page.example", *FIELDS, body=raw))
        for wrong in UNREADABLE:
            sent.ask(site, request("POST", path, sent.keys.inference, body=wrong.encode("latin-1")))
    cloud = b'{"model":"canary:cloud","prompt":"canary-prompt"}'
    sent.ask(site, request("POST", "/api/generate", sent.keys.inference, body=cloud), own=False)
    sent.ask(site, request("POST", "/api/blobs/sha256:canary", sent.keys.manage, body=b"canary-blob"))
    sent.ask(site, request("GET", "/v1/models/canary-model", sent.keys.read), own=False)
    sent.ask(site, request("DELETE", "/api/delete", sent.keys.read, body=b'{"model":"canary"}'))


def send_answers(site: Site, sent: Sent) -> None:
    """Everything that Ollama may say, right or wrong, to clients that stay and to some that leave."""
    for raw, ends in ANSWERS.values():

        def answer(exchange: Exchange, raw: bytes = raw, ends: bool = ends) -> None:
            exchange.read_body()
            exchange.send(raw)
            if ends:
                exchange.close()

        site.upstream.answer = answer
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"):
            sent.ask(site, request("POST", path, sent.keys.every, body=BODIES[path].encode()), own=False)
    site.upstream.play()
    client = site.connect()
    client.send(request("POST", "/api/chat", sent.keys.every, body=BODIES["/api/chat"].encode()))
    exchange = site.upstream.next()
    exchange.send(message("200 OK", [NDJSON, CHUNKED], length=False))
    exchange.chunk(STREAM)
    client.head("POST")
    client.close()
    exchange.left_at()
    site.upstream.forget()


def send_garbage(site: Site, sent: Sent) -> None:
    for raw in GARBAGE:
        sent.ask(site, raw)
    torn = site.connect()
    torn.send(request("POST", "/api/chat", sent.keys.inference, "Content-Length: 1000") + b'{"canary')
    torn.close()


def show_certificates(site: Site, sent: Sent, authority: Authority, folder: Path) -> None:
    for name, signed_by in (
        ("canary-name", authority),
        ("canary-stranger", Authority()),
        ("read", authority),
    ):
        context = ssl.create_default_context(cafile=site.config.parent / "data" / "tls.crt")
        context.load_cert_chain(*signed_by.write_client(folder, name))
        with suppress(OSError, TornError):
            client = Client.connect(site.port, context)
            answer = client.request(request("GET", "/api/version"))
            client.close()
            site.logged(answer.header("x-request-id") or "")


def change_configuration(site: Site) -> None:
    """To one that holds secrets where they do not belong; then with the file of the token changed."""
    good = site.config.read_text()
    for wrong in (toml(SECRETS_OUT_OF_PLACE), "[ops]\ntoken_file = 'canary\n", f"{WORD} = ["):
        told = len(refused(site))
        site.config.write_text(wrong)
        site.process.send_signal(signal.SIGHUP)
        until(lambda told=told: len(refused(site)) > told, 5)  # type: ignore[misc]
    site.config.write_text(good)
    site.process.send_signal(signal.SIGHUP)
    until(lambda: any(line.get("action") == "configuration_changed" for line in site.log), 5)


def refused(site: Site) -> list[dict[str, Any]]:
    return [line for line in list(site.log) if line.get("action") == "configuration_refused"]


def check(text: bytes, what: str, sent: Sent) -> None:
    """Nothing that was sent is in the text, however it is written."""
    low = text.lower()
    at = low.find(WORD.encode())
    assert at < 0, f"{what}: {text[max(0, at - 200) : at + 100]!r}"
    assert base64.b64encode(b"canary").rstrip(b"=")[:-1] not in text, what
    for secret in sent.secrets:
        assert secret.encode() not in text, what


def scrape(site: Site, path: str, accept: str = "text/plain") -> bytes:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{site.ops_port}{path}",
        headers={"Accept": accept, "Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:
        body: bytes = answer.read()
    return body


def test_all_of_it_was_sent(site: Site, sent: Sent) -> None:
    """Else nothing below could fail."""
    assert {200, 400, 401, 403, 404, 414, 417, 431, 500, 501, 502} <= sent.statuses
    assert len(sent.refusals) > 150
    codes = {line["code"] for line in site.log if "outcome" in line}
    assert codes >= {
        *("malformed_request", "ambiguous_credentials", "unreadable_body", "invalid_credentials"),
        *("expired_credentials", "missing_credentials", "scope_denied", "cloud_denied", "unknown_route"),
        *("internal_error", "upstream_unreachable", "upstream_protocol_error", "headers_too_large"),
    }
    assert {line["outcome"] for line in site.log if "outcome" in line} >= {
        *("ok", "denied", "client_closed", "upstream_failed"),
    }
    assert {line["auth"] for line in site.log if "outcome" in line} >= {
        *("api_key", "path_key", "jwt", "client_certificate"),
    }
    assert len(refused(site)) == 3
    assert len(refused(site)[0]["faults"]) >= 5


def test_the_log_tells_nothing(site: Site, sent: Sent) -> None:
    tracebacks = [line for line in site.log if "traceback" in line]
    assert tracebacks
    assert "a fault within" in tracebacks[0]["traceback"]
    assert any(line.get("event") == "audit" for line in site.log)
    check("".join(site.out).encode(), "stdout", sent)
    check("".join(site.err).encode(), "stderr", sent)


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_the_metrics_tell_nothing(accept: str, site: Site, sent: Sent) -> None:
    text = scrape(site, "/metrics", accept)
    assert b"ollama_proxy_tokens_total" in text
    check(text, "/metrics", sent)


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
def test_the_checks_tell_nothing(path: str, site: Site, sent: Sent) -> None:
    check(scrape(site, path), path, sent)


def test_refusals_tell_nothing(site: Site, sent: Sent) -> None:
    for answer in sent.refusals:
        check(answer, "an answer of the proxy", sent)


def test_the_store_holds_digests_alone(site: Site, sent: Sent) -> None:
    """In the file and in the log beside it, byte by byte."""
    store = sent.keys.store

    def files() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in store.parent.iterdir() if file.suffix != ".toml"}

    until(lambda: any(b"/v1/messages" in content for content in files().values()), 10)  # the ledger
    found = files()
    assert any(sha256(sent.keys.default.encode()).digest() in content for content in found.values())
    for name, content in found.items():
        check(content, name, sent)


def test_the_files_beside_the_configuration_hold_nothing(site: Site, sent: Sent) -> None:
    for file in site.config.parent.rglob("*"):
        if file.is_file() and file != site.config:
            check(file.read_bytes(), file.name, sent)
