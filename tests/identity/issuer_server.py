"""An issuer's HTTPS server with a certificate of a private CA. It answers as the test says, or not at all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .tokens import Signer, jwks

KEYS = "/keys"
DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class Answer:
    """``drip`` sends one byte each so many seconds, ``endless`` never stops, ``wait`` is before anything."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    endless: bool = False


class IssuerServer:
    """``requests`` are the paths that were asked for; ``sent`` counts bytes of bodies."""

    def __init__(self, folder: Path, *, tls: bool = True, name: str = "127.0.0.1") -> None:
        self.ca_file = folder / "ca.pem"
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.sent = 0
        self.stopping = threading.Event()
        self._context = _server_context(folder, self.ca_file, name) if tls else None
        self._port = 0
        self._server: _Server | None = None
        self.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """On the port that it had before."""
        self.stopping.clear()
        server = _Server(("127.0.0.1", self._port), _handler(self))
        server.daemon_threads = True
        self._port = server.server_address[1]
        if self._context is not None:
            # Shaken hands with in the thread of the request: where connections are accepted, a client that
            # waits for `stop` to return would keep it from returning.
            server.socket = self._context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def publish(self, *signers: Signer) -> None:
        self.answers[KEYS] = Answer(jwks(*(signer.jwk() for signer in signers)))

    def describe(self, **changes: object) -> None:
        """Publish a discovery document."""
        document = {"issuer": self.url, "jwks_uri": self.url + KEYS} | changes
        self.answers[DISCOVERY] = Answer(json.dumps(document).encode())


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that do not trust us, or have left, are what tests are about."""


@contextmanager
def issuer_server(folder: Path, *, tls: bool = True, name: str = "127.0.0.1") -> Iterator[IssuerServer]:
    server = IssuerServer(folder, tls=tls, name=name)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def _handler(server: IssuerServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append(self.path)
            answer = server.answers.get(self.path, Answer(b"not found", 404))
            with suppress(OSError):
                self._answer(answer)
            self.close_connection = True

        def _answer(self, answer: Answer) -> None:
            server.stopping.wait(answer.wait)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not answer.endless:
                self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if answer.drip:
                for byte in answer.body:
                    self._send(bytes([byte]))
                    if server.stopping.wait(answer.drip):
                        return
            else:
                self._send(answer.body)
            while answer.endless and not server.stopping.is_set():
                self._send(b" " * 65536)

        def _send(self, data: bytes) -> None:
            self.wfile.write(data)
            server.sent += len(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _server_context(folder: Path, ca_file: Path, name: str) -> ssl.SSLContext:
    ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _common_name("private CA")
    ca = _builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(True, 0), True)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca_certificate = ca.add_extension(usage, True).sign(ca_key, hashes.SHA256())
    ca_file.write_bytes(ca_certificate.public_bytes(serialization.Encoding.PEM))
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        general_name: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        general_name = x509.DNSName(name)
    leaf = _builder(_common_name("issuer"), ca_name, key)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([general_name]), False)
    pair = folder / "issuer.pem"
    pair.write_bytes(
        leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    return context


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
