"""Runs the simulator on a socket, inside the event loop of whoever wants it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from proxy.simulator.app import create_app

_NEVER = 10 * 365 * 24 * 3600  # seconds; Ollama has no idle time-out


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which would take the place of the host's own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def end_at_once(self) -> None:
        """Close the listener and every connection, whatever is under way on them."""
        self.should_exit = True
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator that listens."""

    url: str
    _server: _Server
    _task: asyncio.Task[None]

    async def stop(self) -> None:
        """End it as if Ollama had been killed: open streams break off. Harmless when done twice."""
        self._server.end_at_once()
        await self._task


async def start(
    host: str = "127.0.0.1", port: int = 0, tokens_per_second: float = 20.0, load_seconds: float = 3.0
) -> Running:
    """Listen on `host` (an address) and `port` (0: a free one), in the running event loop.

    Leaves signals and the configuration of logging alone. Raises OSError when the address cannot be had, and
    ValueError as `create_app` does.
    """
    app = create_app(tokens_per_second, load_seconds)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = _listener(family, host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_NEVER,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not server.started:
        await task  # raises what went wrong
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    return Running(f"http://{shown}:{listener.getsockname()[1]}", server, task)


def _listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted; socket.create_server names none,
    # and then every answer in two writes waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
