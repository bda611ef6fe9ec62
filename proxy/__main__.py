"""Runs the command line: ``python -m proxy``, and the command ``ollama-auth-proxy``."""

from __future__ import annotations

from proxy.cli import app


def main() -> None:
    app(prog_name="ollama-auth-proxy")


if __name__ == "__main__":
    main()
