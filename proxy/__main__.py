"""Runs the command line: ``python -m proxy``, and the command ``ollama-auth-proxy``."""

from __future__ import annotations

import os
import sys

from proxy.cli import app


def main() -> None:
    """Exits with the code of the command."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # closed by whoever started us; a socket must not take its place
            os.open(os.devnull, os.O_RDWR)
    try:
        app(prog_name="ollama-auth-proxy")
    except OSError as error:  # stdout cannot be written, most likely
        print(f"error: {(error.strerror or 'unknown error').lower()}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
