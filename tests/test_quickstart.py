"""`ollama-auth-proxy quickstart`: what it prints works when pasted, and it says whom it asks."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

TIMEOUT = 30.0
DEFAULT_OLLAMA = "127.0.0.1:11434"

# Brings the loopback interface of a new network namespace up (SIOCSIFFLAGS, IFF_UP), then runs the rest.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Running:
    """A process and what it has printed so far."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=directory
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self.news = threading.Condition()
        self.readers = [
            threading.Thread(target=self._collect, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self.readers:
            reader.start()

    def _collect(self, stream: Iterator[str], lines: list[str]) -> None:
        for line in stream:
            with self.news:
                lines.append(line)
                self.news.notify_all()

    def said(self, pattern: str, *, on_stdout: bool = False) -> re.Match[str]:
        """Wait for a line that contains this."""
        lines = self.out if on_stdout else self.err

        def found() -> re.Match[str] | None:
            return next((match for line in lines if (match := re.search(pattern, line))), None)

        with self.news:
            self.news.wait_for(found, TIMEOUT)
            match = found()
        assert match, f"no {pattern!r}:\n{''.join(self.out)}\n{''.join(self.err)}"
        return match

    def curl_line(self) -> str:
        return self.said(r"^curl .*", on_stdout=True)[0]

    def key(self) -> str:
        return self.said(r"^curl .*\b(oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49})\b", on_stdout=True)[1]

    def exit_code(self) -> int:
        code = self.process.wait(TIMEOUT)
        for reader in self.readers:
            reader.join(TIMEOUT)
        assert "Traceback" not in "".join(self.out + self.err)
        return code

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.exit_code()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes in a folder of the test's own; those that still run at its end are killed."""
    with ExitStack() as stack:

        def run(*command: str) -> Running:
            running = Running(list(command), tmp_path)
            stack.callback(running.process.wait)
            stack.callback(running.process.kill)
            return running

        yield run


def quickstart(*options: str, data: str = "data", listen: str = "127.0.0.1:0") -> list[str]:
    return [sys.executable, "-m", "proxy", "quickstart", "--data", data, "--listen", listen, *options]


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of something that answers like Ollama, 50 tokens a second."""
    simulator = [sys.executable, "-m", "proxy.simulator", "--listen", "127.0.0.1:0"]
    running = Running([*simulator, "--tokens-per-second", "50"], tmp_path_factory.mktemp("simulator"))
    yield running.said(r"http://127\.0\.0\.1:\d+")[0]
    running.process.kill()
    running.process.wait()


def paste(line: str, *prefix: str) -> list[float]:
    """Run a printed line in another terminal, somewhere else; returns when each line of the answer came."""
    shell = subprocess.Popen(
        [*prefix, "bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    assert shell.stdout
    assert shell.stderr
    lines = [(time.monotonic(), text) for text in shell.stdout]
    assert shell.wait(TIMEOUT) == 0, shell.stderr.read()
    parts = [json.loads(text) for _, text in lines]
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part["message"]["content"] for part in parts)
    shell.stdout.close()
    shell.stderr.close()
    return [arrived for arrived, _ in lines]


def test_the_printed_curl_line_streams_an_answer(start: Start, ollama: str) -> None:
    proxy = start(*quickstart("--upstream", ollama))
    arrivals = paste(proxy.curl_line())
    assert len(arrivals) > 20
    assert arrivals[-1] - arrivals[0] > 0.5, "the answer came at once"


def test_only_the_curl_line_comes_on_stdout_before_the_first_request(start: Start, ollama: str) -> None:
    proxy = start(*quickstart("--upstream", ollama))
    line = proxy.curl_line()
    assert proxy.out == [f"{line}\n"]


def test_it_says_that_it_uses_the_ollama_it_was_given(start: Start, ollama: str) -> None:
    proxy = start(*quickstart("--upstream", ollama))
    proxy.curl_line()
    proxy.said(re.escape(f"Using the Ollama at {ollama}."))
    assert "simulator" not in "".join(proxy.err).lower()


def test_the_next_start_keeps_key_and_certificate(start: Start, ollama: str, tmp_path: Path) -> None:
    first = start(*quickstart("--upstream", ollama))
    key, certificate = first.key(), (tmp_path / "data" / "tls.crt").read_bytes()
    assert first.interrupt() == 0
    second = start(*quickstart("--upstream", ollama))
    assert second.key() == key
    assert (tmp_path / "data" / "tls.crt").read_bytes() == certificate
    paste(second.curl_line())


def test_the_next_start_replaces_a_key_that_was_revoked(start: Start, ollama: str, tmp_path: Path) -> None:
    first = start(*quickstart("--upstream", ollama))
    key = first.key()
    assert first.interrupt() == 0
    keys = [sys.executable, "-m", "proxy", "keys"]
    assert start(*keys, "revoke", key.split("_")[1], "--config", "data/config.toml").exit_code() == 0
    second = start(*quickstart("--upstream", ollama))
    assert second.key() != key
    paste(second.curl_line())


def test_what_it_keeps_is_for_its_owner_alone(start: Start, ollama: str, tmp_path: Path) -> None:
    start(*quickstart("--upstream", ollama)).curl_line()
    for path in (tmp_path / "data", tmp_path / "data" / "quickstart.key", tmp_path / "data" / "tls.key"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_ctrl_c_ends_it_with_exit_code_0(start: Start, ollama: str) -> None:
    proxy = start(*quickstart("--upstream", ollama))
    proxy.curl_line()
    assert proxy.interrupt() == 0


def test_a_busy_port_is_a_clear_text_and_exit_code_2(start: Start, ollama: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        proxy = start(*quickstart("--upstream", ollama, listen=address))
        assert proxy.exit_code() == 2
    assert re.search(rf"{address}.*in use", "".join(proxy.err))
    assert proxy.out == []


@pytest.mark.parametrize("listen", ["8443", "127.0.0.1:70000", "nowhere:"])
def test_an_address_that_is_none_is_a_clear_text_and_exit_code_2(
    listen: str, start: Start, ollama: str
) -> None:
    proxy = start(*quickstart("--upstream", ollama, listen=listen))
    assert proxy.exit_code() == 2
    assert "--listen" in "".join(proxy.err)
    assert proxy.out == []


def test_an_upstream_that_is_no_url_is_a_clear_text_and_exit_code_2(start: Start) -> None:
    proxy = start(*quickstart("--upstream", "127.0.0.1:11434"))
    assert proxy.exit_code() == 2
    assert "http://" in "".join(proxy.err)
    assert proxy.out == []


# -- without --upstream, where it matters what answers at Ollama's own address


@pytest.fixture
def apart() -> list[str]:
    """What to put before a command so that it runs on a network of its own, where nothing answers."""
    prefix = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("network namespaces need unshare and nsenter, of util-linux")
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    return prefix


def beside(running: Running) -> list[str]:
    """What to put before a command so that it runs on the network of another one."""
    target = str(running.process.pid)
    return ["nsenter", "--preserve-credentials", "--user", "--net", "--target", target]


def test_without_an_ollama_it_says_that_the_simulator_answers(start: Start, apart: list[str]) -> None:
    proxy = start(*apart, *quickstart())
    arrivals = paste(proxy.curl_line(), *beside(proxy))
    proxy.said(rf"No Ollama answers at http://{DEFAULT_OLLAMA}.*SIMULATOR")
    assert "Using the Ollama" not in "".join(proxy.err)
    assert arrivals[-1] - arrivals[0] > 0.5, "the answer came at once"
    assert proxy.interrupt() == 0


def test_an_ollama_at_its_own_address_is_found(start: Start, apart: list[str]) -> None:
    simulator = [sys.executable, "-m", "proxy.simulator", "--listen", DEFAULT_OLLAMA]
    ollama = start(*apart, *simulator, "--tokens-per-second", "200")
    ollama.said(DEFAULT_OLLAMA)
    proxy = start(*beside(ollama), *quickstart())
    paste(proxy.curl_line(), *beside(ollama))
    proxy.said(rf"Using the Ollama at http://{DEFAULT_OLLAMA}\.")
    assert "simulator" not in "".join(proxy.err).lower()
    assert proxy.interrupt() == 0
