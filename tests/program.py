"""The program's commands, each in a process of its own that begins where the imports end.

Reading the program takes half a second of a processor, and the tests run hundreds of commands. So one process
reads it once, and forks another for each command, with that command's own arguments, environment, folder and
descriptors; what it prints and how it ends are its own too. What a fresh interpreter adds, `tests/cli`
shows with `python -m proxy`.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from tempfile import TemporaryFile
from typing import IO

import typer

TIMEOUT = 60.0
_ROOMS = ("proxy.cli", "proxy.config", "proxy.store")


def run(
    *arguments: str,
    environ: dict[str, str] | None = None,
    input: str = "",
    stdout: IO[str] | None = None,
    timeout: float = TIMEOUT,
) -> subprocess.CompletedProcess[str]:
    """Run `ollama-auth-proxy` with these arguments; raises subprocess.TimeoutExpired.

    Without ``environ`` it has the environment of this process. What goes to ``stdout`` is not captured.
    """
    request = {
        "arguments": [os.fsencode(argument).hex() for argument in arguments],
        "environ": {
            os.fsencode(name).hex(): os.fsencode(value).hex()
            for name, value in (os.environ if environ is None else environ).items()
        },
        "folder": os.getcwd(),
    }
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in range(3)]
        files[0].write(input.encode())
        files[0].seek(0)
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        fds = [files[0].fileno(), files[1].fileno() if stdout is None else stdout.fileno(), files[2].fileno()]
        socket.send_fds(_server(), [b"c"], [theirs.fileno(), *fds])
        theirs.close()
        ours.settimeout(timeout)
        ours.sendall(json.dumps(request).encode() + b"\n")
        answers = stack.enter_context(ours.makefile("r"))
        pid = int(answers.readline())
        try:
            status = int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(arguments, timeout) from None
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess(
            arguments,
            os.waitstatus_to_exitcode(status),
            None if stdout else files[1].read().decode(),
            files[2].read().decode(),
        )


@cache
def _server() -> socket.socket:
    """Our end of the socket of the process that forks; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        command = [sys.executable, "-P", __file__, str(number)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[number], cwd="/")

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _fork_for_each(control: socket.socket) -> None:
    """Fork a process for every command; returns in these alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for commands
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 4)
        if not fds:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            _become_a_command(*fds)
            return
        for fd in fds:
            os.close(fd)


def _become_a_command(answer: int, *standard: int) -> None:
    """Fork once more: the child is the command, the parent tells its process id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=answer) as sock, sock.makefile("r") as requests:
        request = json.loads(requests.readline())
        if pid := os.fork():
            sock.sendall(b"%d\n" % pid)
            sock.sendall(b"%d\n" % os.waitpid(pid, 0)[1])
            os._exit(0)
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before: io.TextIOWrapper = getattr(sys, name)
        stream = open(number, before.mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(
        {os.fsdecode(bytes.fromhex(k)): os.fsdecode(bytes.fromhex(v)) for k, v in request["environ"].items()}
    )
    sys.argv[1:] = [os.fsdecode(bytes.fromhex(argument)) for argument in request["arguments"]]


if __name__ == "__main__":
    from proxy.__main__ import app, main

    for room in _ROOMS:
        for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
            import_module(module.name)
    typer.main.get_command(app)
    gc.freeze()
    _fork_for_each(socket.socket(fileno=int(sys.argv[1])))
    main()
