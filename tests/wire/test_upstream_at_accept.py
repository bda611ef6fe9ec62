"""Whatever listens at upstream.url ends connections as soon as it accepts them: always 502, never a fault."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import StartSite
from .messages import check_refusal, request
from .site import Keys, Site

EARLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FAILURES = "ollama_proxy_upstream_failures_total"


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(sock: socket.socket) -> None:
    sock.sendall(EARLY)


def close(sock: socket.socket) -> None:
    """Just that."""


class Acceptor:
    """Does one thing to every connection, and closes it."""

    def __init__(self) -> None:
        self.act: Callable[[socket.socket], None] = close
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                self.act(sock)


@pytest.fixture(scope="module")
def acceptor() -> Iterator[Acceptor]:
    made = Acceptor()
    yield made
    with contextlib.suppress(OSError):
        made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


@pytest.fixture(scope="module")
def plain_site(start_site: StartSite, acceptor: Acceptor) -> Site:
    return start_site(
        tls={"mode": "off"}, upstream={"url": f"http://127.0.0.1:{acceptor.port}"}, wait_for="/healthz"
    )


@pytest.mark.parametrize("site", ["plain"], indirect=True)
@pytest.mark.parametrize("act", [close, reset, answer])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_ends_as_soon_as_it_is_open_is_502(
    method: str, act: Callable[[socket.socket], None], site: Site, acceptor: Acceptor, keys: Keys
) -> None:
    acceptor.act = act
    raw = request("GET", "/api/tags", keys.read)
    if method == "POST":
        raw = request("POST", "/api/generate", keys.default, body=b"{}")
    before = site.samples()

    def ask(times: int) -> list[tuple[int, bytes]]:
        found = []
        for _ in range(times):
            with contextlib.closing(site.connect()) as client:
                got = client.request(raw, method)
                if got.status == 502:
                    check_refusal(got, 502, "upstream_unreachable", method=method)
                found.append((got.status, got.body if got.status == 200 else b""))
        return found

    with ThreadPoolExecutor(8) as pool:
        counted = Counter(answer for part in pool.map(ask, [25] * 8) for answer in part)
    assert set(counted) <= ({(502, b""), (200, b"hi")} if act is answer else {(502, b"")})
    # A reset may come so early that the connection is not even established for the proxy.
    kinds = {
        kind: site.metric(FAILURES, {"kind": kind}) - site.metric(FAILURES, {"kind": kind}, before)
        for kind in ("reset", "connect")
    }
    assert sum(kinds.values()) == counted[502, b""]
    if act is close:
        assert kinds["connect"] == 0
    if act is not answer:
        assert kinds["reset"] > 0
    assert site.metric("ollama_proxy_requests_in_flight", {}) == 0
    assert not [line for line in (*site.out, *site.err) if "Traceback" in line or '"traceback"' in line]
