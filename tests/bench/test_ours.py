"""The proxy that is measured has every way of authenticating configured, and a guard that looks at bodies."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench import procfs, tokens
from bench.certificate import make_certificate, make_client_ca
from bench.load import chats
from bench.load.large_chats import post
from bench.process import running
from bench.proxies.ours import ours
from bench.proxies.site import Running, Site, make_key, status_of


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    files = tmp_path_factory.mktemp("files")
    certificate, private_key = make_certificate(files)
    command = [sys.executable, "-m", "bench.upstream", "--certificate", str(certificate)]
    core = min(os.sched_getaffinity(0))
    with running([*command, "--private-key", str(private_key)], core=core, talk=True) as upstream:
        assert upstream.stdout is not None
        port = json.loads(upstream.stdout.readline())["plain"]
        folder = tmp_path_factory.mktemp("site")
        with ours(Site(folder, core, port, True, certificate, private_key, make_client_ca(files))) as proxy:
            yield proxy


def _status(proxy: Running, credential: str) -> int:
    return status_of(replace(proxy.target, key=credential))


def test_keys_and_the_tokens_of_both_issuers_are_good_and_nothing_else_is(proxy: Running) -> None:
    keys = [proxy.target.key, proxy.limited_key, proxy.free_key]
    jwts = [tokens.tokens(algorithm, 1)[0] for algorithm in tokens.ALGORITHMS]
    assert [_status(proxy, credential) for credential in [*keys, *jwts]] == [200] * 5
    refused = [make_key(), "garbage", jwts[0][:-8] + "AAAAAAAA"]
    assert [_status(proxy, credential) for credential in refused * 20] == [401] * 60  # and never 429


def test_a_key_in_the_path_is_good(proxy: Running) -> None:
    with replace(proxy.target, key="").connect() as sock:
        sock.sendall(replace(proxy.target, key="").head("GET", f"/~{proxy.target.key}/api/version"))
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200")


def test_clients_are_asked_for_certificates(proxy: Running, tmp_path: Path) -> None:
    """One that nobody there knows ends the handshake; without one the handshake is good, as above."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*make_certificate(tmp_path))
    with socket.create_connection(("127.0.0.1", proxy.target.port), timeout=10) as sock:
        assert _first_byte(sock, context, proxy.target.head("GET", "/api/version")) == b""


def _first_byte(sock: socket.socket, context: ssl.SSLContext, request: bytes) -> bytes:
    """Of the answer; empty where the connection ended before it, in whatever way."""
    with suppress(OSError), context.wrap_socket(sock) as tls:
        tls.sendall(request)
        return tls.recv(1)
    return b""


def _chat(proxy: Running, key: str, body: bytes) -> None:
    with replace(proxy.target, key=key).connect() as sock:
        post(sock, replace(proxy.target, key=key).head("POST", chats.PATH, len(body)) + body)


def test_only_the_limited_key_is_held_to_its_models(proxy: Running) -> None:
    other = chats.small().replace("llama3.2", "mistral8").encode()
    _chat(proxy, proxy.limited_key, chats.small().encode())
    _chat(proxy, proxy.target.key, other)
    with pytest.raises(ConnectionError, match=r"HTTP/1\.1 403"):
        _chat(proxy, proxy.limited_key, other)


def test_only_the_free_key_may_leave_for_the_cloud(proxy: Running) -> None:
    cloud = chats.small().replace("llama3.2", "gpt:cloud").encode()
    _chat(proxy, proxy.free_key, cloud)
    with pytest.raises(ConnectionError, match=r"HTTP/1\.1 403"):
        _chat(proxy, proxy.target.key, cloud)


def test_a_large_body_is_judged_by_a_process_that_counts_as_the_proxys_own(proxy: Running) -> None:
    body = chats.large("text")
    _chat(proxy, proxy.free_key, body)
    assert procfs.tree(proxy.pid) == [proxy.pid]
    _chat(proxy, proxy.limited_key, body)
    assert len(procfs.tree(proxy.pid)) == 2
