"""The loads and the fake Ollama agree, over plain connections and TLS: what is counted is what was sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator

import pytest

from bench.certificate import make_certificate
from bench.load.bodies import download, upload
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
