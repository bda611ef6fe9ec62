"""Hands large bodies to processes of `proxy.guard.worker`, and starts those when they are needed."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

from proxy.errors import ProxyError
from proxy.guard import worker
from proxy.guard.judge import Asked
from proxy.policy.body import Facts

log = logging.getLogger("ollama_auth_proxy")

TIME = 20.0
"""Seconds for one body, the start of the process included."""

MEMORY_FOR_ITSELF = 256 * 1024 * 1024
TIMES_THE_BODY = 10
"""A body, its text (four bytes a character at most) and the values in it."""

SHORT = 1024 * 1024
"""Bytes of bodies that have a process of their own, so that they do not wait for the long ones."""

MOST_WAITING = 64
"""Bodies that wait for one process; others are told to come back."""

PIECE = 256 * 1024


class Workers:
    """``max_body`` is the largest body, in bytes, that is ever asked about."""

    def __init__(self, max_body: int) -> None:
        self._short = _Worker(min(SHORT, max_body))
        self._long = _Worker(max_body)

    async def judge(self, asked: Asked, pieces: Sequence[bytes], size: int) -> Facts:
        """What the body asks for. When cancelled, its process is ended, or not even asked.

        Raises ProxyError: ``unreadable_body``; ``body_too_large`` where reading takes too much time or
        memory; ``queue_full``; ``internal_error`` where there is no process.
        """
        return await (self._short if size <= SHORT else self._long).judge(asked, pieces, size)

    def close(self) -> None:
        """End the processes, if there are any."""
        self._short.close()
        self._long.close()


class _Worker:
    """One process, which gets one body after the other."""

    def __init__(self, max_body: int) -> None:
        self._memory = MEMORY_FOR_ITSELF + TIMES_THE_BODY * max_body
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: Process | None = None

    async def judge(self, asked: Asked, pieces: Sequence[bytes], size: int) -> Facts:
        if self._waiting >= MOST_WAITING:
            raise ProxyError(
                "queue_full",
                "too many large bodies wait to be read: try again in a moment",
                headers=((b"Retry-After", b"1"),),
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._judge(asked, pieces, size)
        finally:
            self._waiting -= 1

    async def _judge(self, asked: Asked, pieces: Sequence[bytes], size: int) -> Facts:
        try:
            async with asyncio.timeout(TIME):
                answer = await self._ask(asked, pieces, size)
            return worker.decode(answer)
        except ProxyError:
            raise
        except TimeoutError:
            self.close()
            raise worker.too_much() from None
        except (OSError, EOFError, ValueError, TypeError) as fault:
            log.error(
                "the process that reads large bodies failed (%s), and is started anew with the next one: see"
                " whether memory is short, or processes are limited",
                type(fault).__name__,
            )
            self.close()
            raise ProxyError(
                "internal_error", "the proxy failed: the operator finds the reason in its log"
            ) from None
        except BaseException:
            self.close()
            raise

    async def _ask(self, asked: Asked, pieces: Sequence[bytes], size: int) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(worker.question(asked, size))
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                stdin.write(piece[start : start + PIECE] if len(piece) > PIECE else piece)
                await stdin.drain()
        answer = await stdout.readline()
        if not answer.endswith(b"\n"):
            raise EOFError
        return answer

    async def _start(self) -> Process:
        # It finds this package wherever we found it, and nothing in the folder that we were started in.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", worker.__name__, str(self._memory)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # a traceback could hold a piece of a body
            env=environment,
            start_new_session=True,  # Ctrl-C is for the proxy, which lets requests end
        )

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
