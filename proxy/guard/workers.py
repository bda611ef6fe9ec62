"""Hands large bodies to the process of `proxy.guard.worker`, one after the other, and starts it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

from proxy.errors import ProxyError
from proxy.guard import worker
from proxy.guard.judge import Asked
from proxy.policy.body import Facts

TIME = 20.0
"""Seconds for one body, the start of the process included."""

MEMORY_FOR_ITSELF = 256 * 1024 * 1024
TIMES_THE_BODY = 10
"""A body, its text (four bytes a character at most) and the values in it."""

PIECE = 256 * 1024


class Workers:
    """``max_body`` is the largest body, in bytes, that is ever asked about."""

    def __init__(self, max_body: int) -> None:
        self._memory = MEMORY_FOR_ITSELF + TIMES_THE_BODY * max_body
        self._turn = asyncio.Lock()
        self._process: Process | None = None

    async def judge(self, asked: Asked, pieces: Sequence[bytes], size: int) -> Facts:
        """What the body asks for. When cancelled, the process is ended.

        Raises ProxyError: ``unreadable_body``, or ``body_too_large`` where reading takes too much time or
        memory.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(TIME):
                    answer = await self._ask(asked, pieces, size)
                return worker.decode(answer)
            except ProxyError:
                raise
            except (OSError, EOFError, ValueError, TypeError):  # TimeoutError is an OSError
                self.close()
                raise ProxyError(
                    "body_too_large", "the body takes too long to read or too much memory: send less"
                ) from None
            except BaseException:
                self.close()
                raise

    async def _ask(self, asked: Asked, pieces: Sequence[bytes], size: int) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", worker.__name__, str(self._memory)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,  # a traceback could hold a piece of a body
                start_new_session=True,  # Ctrl-C is for the proxy, which lets requests end
            )
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

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
