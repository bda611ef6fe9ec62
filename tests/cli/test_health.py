"""`health`: what a HEALTHCHECK and a script learn from it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ..doctor.deployment import Ollama, ollama
from ..wire.site import Keys, Site, free_port
from .command import proxy, said

NO_KEY = "oap_0123456789_nobody-has-this"


@pytest.fixture(scope="module")
def server() -> Iterator[Ollama]:
    with ollama() as server:
        yield server


@pytest.fixture(scope="module")
def site(server: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a token for its metrics, which its health does not need."""
    folder = tmp_path_factory.mktemp("health")
    (folder / "token").write_text("canary-token-5d1f")
    tables = {"upstream": {"url": server.url}, "tls": {"mode": "off"}}
    tables["ops"] = {"token_file": str(folder / "token")}
    site = Site(folder, Keys(folder / "keys.db", *[NO_KEY] * 9), **tables)
    yield site
    site.stop()


@contextmanager
def readyz(status: int, body: bytes) -> Iterator[int]:
    """Answers as a proxy in that state does; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def ask(config: Path, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    config.write_text(f'[tls]\nmode = "off"\n[ops]\naddress = "{address}"\n')
    return proxy("health", "--config", str(config), *options)


@pytest.mark.parametrize("wildcard", ["", "0.0.0.0"])
def test_a_proxy_that_serves_is_ok(site: Site, config: Path, wildcard: str) -> None:
    done = ask(config, f"{wildcard or '127.0.0.1'}:{site.ops_port}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_json_is_what_the_proxy_said(site: Site) -> None:
    done = proxy("health", "--config", str(site.config), "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document == json.loads(site.ops("/readyz")[1])
    assert document["status"] == "ok"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("degraded", 0), ("failing", 1)])
def test_degraded_still_serves(config: Path, status: str, code: int) -> None:
    checks = {"store": {"status": status, "reason": "the key store is\nlocked"}, "upstream": {"status": "ok"}}
    body = json.dumps({"status": status, "checks": checks}).encode()
    with readyz(503 if status == "failing" else 200, body) as port:
        done = ask(config, f"127.0.0.1:{port}")
    assert done.returncode == code
    expected = [status] if status == "ok" else [status, f"store: {status}, the key store is?locked"]
    assert done.stdout.splitlines() == expected


def test_no_answer_fails_and_names_the_address(config: Path) -> None:
    done = ask(config, f"127.0.0.1:{(port := free_port())}")
    assert done.returncode == 1
    assert said(done) == f"error: no answer from 127.0.0.1:{port} (connection refused): is 'serve' running?"


def test_no_answer_is_a_document_too(config: Path) -> None:
    done = ask(config, f"127.0.0.1:{free_port()}", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "unreachable"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"status": "well"}', b'{"status": {}}', b"[" * 100_000])
def test_another_server_is_not_taken_for_the_proxy(config: Path, body: bytes) -> None:
    with readyz(200, body) as port:
        done = ask(config, f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "is not this proxy" in said(done)


def test_port_0_cannot_be_asked(config: Path) -> None:
    done = ask(config, "127.0.0.1:0")
    assert (done.returncode, "write a port" in said(done)) == (1, True)


def test_an_invalid_configuration_ends_with_2(config: Path) -> None:
    done = ask(config, "nonsense")
    assert (done.returncode, "ops.address" in said(done)) == (2, True)


def test_what_a_health_check_does_not_need_is_not_loaded() -> None:
    heavy = {"alembic", "cryptography", "fastapi", "httpx", "jose", "sqlalchemy", "uvicorn"}
    code = (
        "import sys, proxy.cli; from proxy.config import load; import http.client\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_tells_the_exit_codes() -> None:
    text = " ".join(proxy("health", "--help").stdout.split())
    assert "Exit code 0: ok or degraded" in text
    assert "ollama-auth-proxy health --config config.toml" in text
