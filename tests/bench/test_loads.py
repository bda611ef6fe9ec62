"""The loads and the fake Ollama agree, over plain connections and TLS: what is counted is what was sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bench.certificate import make_certificate
from bench.load import chats
from bench.load.bodies import download, upload
from bench.load.large_chats import post
from bench.load.target import Target
from bench.process import ROOT, running
from bench.proxies.site import make_key, status_of

_CHUNKS = 5


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    certificate, private_key = make_certificate(tmp_path_factory.mktemp("certificate"))
    command = [sys.executable, "-m", "bench.upstream", "--chunks", str(_CHUNKS), "--pause", "0.01"]
    command += ["--certificate", str(certificate), "--private-key", str(private_key)]
    with running(command, core=min(os.sched_getaffinity(0)), talk=True) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        yield {name: Target(port, name == "tls", "key") for name, port in ports.items()}


def _streams(target: Target, chunks: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.load.streams", target.to_argument()]
    command += ["--streams", "20", "--chunks", str(chunks)]
    return subprocess.run(command, input="\n", capture_output=True, text=True, timeout=20, cwd=ROOT)


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_every_chunk_of_every_stream_is_counted(upstream: dict[str, Target], listener: str) -> None:
    done = _streams(upstream[listener], _CHUNKS)
    assert done.returncode == 0, done.stderr
    connected, figures = done.stdout.splitlines()
    assert connected == "connected"
    assert json.loads(figures)["chunks"] == 20 * _CHUNKS
    assert json.loads(figures)["seconds"] >= (_CHUNKS - 1) * 0.01


def test_a_stream_with_a_chunk_too_few_fails_the_load(upstream: dict[str, Target]) -> None:
    done = _streams(upstream["plain"], _CHUNKS + 1)
    assert done.returncode == 1
    assert "a stream ended after 5 chunks of 6" in done.stderr


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_large_bodies_arrive_whole(upstream: dict[str, Target], listener: str) -> None:
    upload(upstream[listener], 3)
    download(upstream[listener], 3)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\nshort", "1048571 bytes before its end"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "b'HTTP/1.1 401'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200", "in its head"),
    ],
)
def test_a_download_that_is_not_whole_fails(answer: bytes, fault: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target(server.getsockname()[1], tls=False, key="key")
        client = subprocess.Popen(
            [sys.executable, "-m", "bench.load.bodies", target.to_argument(), "down", "1"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)
        _, errors = client.communicate(timeout=20)
    assert client.returncode == 1
    assert fault in errors


_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def answering(answer: Callable[[bytes, int], bytes]) -> Iterator[Target]:
    """A server that answers whatever it reads by ``answer``, which is told how many that makes there."""

    def serve(connection: socket.socket) -> None:
        count = 0
        with connection, suppress(ConnectionError):
            while data := connection.recv(1 << 20):
                count += 1
                connection.sendall(answer(data, count))

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield Target(server.getsockname()[1], tls=False, key="key")
        server.shutdown(socket.SHUT_RDWR)  # ends the thread that waits in accept


def _run(load: str, *arguments: str, talk: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"bench.load.{load}", *arguments]
    return subprocess.run(command, input=talk, capture_output=True, text=True, timeout=30, cwd=ROOT)


@pytest.mark.parametrize("kind", ["picture", "text", "numbers"])
def test_a_large_chat_is_one_json_object_of_10_mib_that_asks_for_no_stream(kind: str) -> None:
    body = chats.large(kind)
    assert len(body) == 10 << 20
    assert json.loads(body)["stream"] is False


def test_a_small_chat_is_one_json_object_of_1_kib_that_asks_for_no_stream() -> None:
    assert len(chats.small().encode("ascii")) == 1024
    assert json.loads(chats.small())["stream"] is False


@pytest.mark.parametrize("body", [chats.small().encode(), chats.large("picture")], ids=["small", "large"])
def test_a_chat_without_a_stream_is_answered_in_one_piece(upstream: dict[str, Target], body: bytes) -> None:
    target = upstream["plain"]
    with target.connect() as sock:
        for _ in range(2):
            assert post(sock, target.head("POST", chats.PATH, len(body)) + body) > 0


def test_chats_with_two_keys_have_a_median_each(upstream: dict[str, Target]) -> None:
    target = upstream["plain"].to_argument()
    done = _run("large_chats", target, target, "text", "--times", "3")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert 0 < figures["free_ms"] < 5000
    assert 0 < figures["guarded_ms"] < 5000


def test_a_pour_lasts_until_it_is_told_to_stop(upstream: dict[str, Target]) -> None:
    command = [sys.executable, "-m", "bench.load.pour", upstream["plain"].to_argument()]
    with running(command, core=min(os.sched_getaffinity(0)), talk=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "pouring\n"
        time.sleep(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["chats"] > 0
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("load", "more", "talk"),
    [
        ("pour", [], "\n"),
        ("large_chats", ["TARGET", "text"], ""),
        ("neighbour", [], ""),
        ("credentials", [], "key"),
    ],
)
def test_a_load_that_is_refused_fails(load: str, more: list[str], talk: str) -> None:
    with answering(lambda _, count: _REFUSED) as target:
        to = target.to_argument()
        done = _run(load, to, *[to if one == "TARGET" else one for one in more], talk=talk)
    assert done.returncode == 1
    assert "answered by b'HTTP/1.1 401'" in done.stderr


def test_every_get_of_a_neighbour_is_timed_from_when_it_was_due() -> None:
    """One GET is answered late: those that were due meanwhile have waited as well."""
    late, pause = 0.6, 0.04

    def fifth_is_late(_: bytes, count: int) -> bytes:
        if count == 5:
            time.sleep(late)
        return _OK

    with answering(fifth_is_late) as target:
        done = _run("neighbour", target.to_argument(), "--seconds", str(20 * pause))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["max_ms"] >= late * 1000
    # Fifteen of twenty were due in that time; by when they were sent, one in twenty would be slow.
    assert figures["p50_ms"] > 2 * pause * 1000


def test_each_credential_is_sent_once() -> None:
    seen: list[bytes] = []

    def note(request: bytes, _: int) -> bytes:
        seen.append(request.partition(b"Bearer ")[2].partition(b"\r\n")[0])
        return _OK

    credentials = [f"token{number}" for number in range(100)]
    with answering(note) as target:
        done = _run("credentials", target.to_argument(), talk="\n".join(credentials))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] == 100
    assert sorted(seen) == sorted(map(str.encode, credentials))


def test_a_small_get_is_answered_on_both_listeners(upstream: dict[str, Target]) -> None:
    assert [status_of(target) for target in upstream.values()] == [200, 200]


def test_a_key_made_up_here_has_the_right_checksum() -> None:
    key = make_key()
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    checksum = 0
    for digit in key[-6:]:
        checksum = checksum * 62 + digits.index(digit)
    assert len(key) == 4 + 10 + 1 + 43 + 6
    assert checksum == zlib.crc32(key[:-6].encode())
