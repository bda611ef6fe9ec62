"""Where a load goes and with which credential: the arguments that all loads share."""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Target:
    """A listener on loopback."""

    port: int
    tls: bool
    key: str

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def head(self, method: str, path: str, length: int | None = None) -> bytes:
        """A request head with the credential; `length` is that of the body, where there is one."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.key}",
        ]
        if length is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def connect(self) -> socket.socket:
        """A blocking connection, through TLS where the target has it."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client_context().wrap_socket(sock) if self.tls else sock

    def to_argument(self) -> str:
        """The target as one command-line argument."""
        return json.dumps(asdict(self))


def client_context() -> ssl.SSLContext:
    """TLS without looking at the certificate, which is the run's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose first argument is the target."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("target", type=lambda text: Target(**json.loads(text)))
    return made


def answer(**figures: float) -> None:
    """Print the result, and with it the CPU seconds that this process took."""
    times = os.times()
    print(json.dumps({**figures, "load_cpu": times.user + times.system}), flush=True)
