"""A headless Chromium that runs what a page offers, and a server for the page."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..clients.programs import cannot_run, npm_packages, run

HERE = Path(__file__).parent
HTML = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script src="page.js"></script>'
FRAMED = '<!doctype html><iframe sandbox="allow-scripts" src="index.html"></iframe>'


def executable() -> str:
    found = shutil.which("chromium")
    if found is None:
        cannot_run("Chromium is not installed; on Debian, apt-get install chromium")
    return found


def build(folder: Path) -> Path:
    """A project with the SDKs as an application has them, and the page that esbuild makes of it."""
    (folder / "node_modules").symlink_to(npm_packages())
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    site = folder / "site"
    options = ["--bundle", "--format=iife", "--log-level=warning", f"--outfile={site / 'page.js'}"]
    done = run([str(folder / "node_modules" / ".bin" / "esbuild"), "page.mjs", *options], folder)
    assert done.returncode == 0, done.stderr
    (site / "index.html").write_text(HTML)
    (site / "framed.html").write_text(FRAMED)
    return site


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def page_server(site: Path) -> Iterator[int]:
    """Serves the page over HTTP; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(5)


def key_of(certificate: Path) -> str:
    """The SHA-256 of a certificate's public key, in base64, as Chromium takes it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Chromium:
    """One browser, with a new profile, that trusts the certificates given and no other of its own accord.

    They are named by their key: Chromium on Linux takes authorities from an NSS database alone, and a switch
    that ignores every fault of every certificate would prove nothing.
    """

    def __init__(self, folder: Path, *certificates: Path) -> None:
        self.process = subprocess.Popen(
            ["node", "driver.mjs", executable(), str(folder / "profile"), *map(key_of, certificates)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started = self.answer()

    def ask(self, page: str, scenario: str, **argument: Any) -> None:
        """Begin what the page offers under this name; `answer` has what comes of it."""
        assert self.process.stdin
        self.process.stdin.write(
            json.dumps({"page": page, "scenario": scenario, "argument": argument}) + "\n"
        )
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr
            raise AssertionError(f"the browser ended: {self.process.stderr.read()[-2000:]}")
        found = json.loads(line)
        assert not (isinstance(found, dict) and "failed" in found), found["failed"]
        return found

    def run(self, page: str, scenario: str, **argument: Any) -> Any:
        self.ask(page, scenario, **argument)
        return self.answer()

    def close(self) -> None:
        """End it, and all that it started: the driver closes its browser at the end of its input."""
        try:
            self.process.communicate(timeout=10)
        finally:
            self.process.kill()
