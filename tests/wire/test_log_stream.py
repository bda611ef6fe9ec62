"""The log goes to a pipe that somebody else reads, in his own time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .conftest import until
from .messages import request
from .site import Keys, command, free_port, toml
from .upstream import Upstream

REQUESTS = 1500
PIPE = 65536


class Piped:
    """A proxy whose stdout is a pipe set non-blocking, as some supervisors leave it; nobody reads it yet."""

    def __init__(self, directory: Path, keys: Keys) -> None:
        self.upstream = Upstream()
        self.port = free_port()
        config = directory / "config.toml"
        tables = {
            "listen": {"address": f"127.0.0.1:{self.port}", "drain_timeout": "5s"},
            "tls": {"mode": "off"},
            "upstream": {"url": f"http://{self.upstream.authority}"},
            "ops": {"address": f"127.0.0.1:{free_port()}"},
            "store": {"url": f"sqlite:///{keys.store}"},
        }
        config.write_text(toml(tables))
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        serve = command("serve", "--config", str(config))
        self.process = subprocess.Popen(serve, stdout=writer, stderr=subprocess.PIPE, cwd=directory)
        os.close(writer)
        until(self._listens, 30)

    def _listens(self) -> bool:
        assert self.process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def read(self) -> list[bytes]:
        """End the proxy and read all that it wrote."""
        self.process.terminate()
        with open(self.reader, "rb") as stream:
            return stream.read().splitlines()


@pytest.fixture
def piped(tmp_path: Path, keys: Keys) -> Iterator[Piped]:
    proxy = Piped(tmp_path, keys)
    yield proxy
    proxy.process.kill()
    proxy.process.communicate(timeout=10)
    proxy.upstream.stop()


def test_no_line_is_lost_or_torn_while_a_non_blocking_pipe_is_full(piped: Piped, keys: Keys) -> None:
    client = Client.connect(piped.port, None)
    names = [f"line-{number}" for number in range(REQUESTS)]
    for start in range(0, REQUESTS, 100):
        some = names[start : start + 100]
        client.send(b"".join(request("GET", "/api/tags", keys.read, f"X-Request-Id: {n}") for n in some))
        assert [client.response().status for _ in some] == [200] * 100
    client.close()
    lines = piped.read()
    assert sum(map(len, lines)) > 4 * PIPE, "the pipe was never full"
    told = [entry for entry in map(json.loads, lines) if "outcome" in entry]
    assert [entry["request_id"] for entry in told] == names
    assert piped.process.wait(10) == 0
