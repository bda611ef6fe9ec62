"""A TLS-terminating proxy in front of ours that serves it below `/prefix`, and takes that away."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from ..wire.site import Site

PREFIX = "/prefix"
_OF_A_CONNECTION = {"connection", "transfer-encoding", "content-length", "host"}


class Relay:
    """Answers with the certificate of the proxy behind it, so that who trusts the one trusts the other."""

    def __init__(self, site: Site) -> None:
        behind = httpx.Client(
            base_url=f"https://localhost:{site.port}", verify=site.trust or True, trust_env=False, timeout=60
        )

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                assert self.path.startswith(f"{PREFIX}/")
                headers = [pair for pair in self.headers.items() if pair[0].lower() not in _OF_A_CONNECTION]
                answer = behind.request(
                    self.command,
                    self.path.removeprefix(PREFIX),
                    headers=headers,
                    content=self.rfile.read(int(self.headers.get("Content-Length", 0))),
                )
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in _OF_A_CONNECTION:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_HEAD = do_POST = do_DELETE = relay  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._behind = behind
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        data = site.config.parent / "data"
        context.load_cert_chain(data / "tls.crt", data / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}{PREFIX}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._behind.close()
