"""The command that asks the running proxy whether it can serve, for health checks and scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from proxy.cli.terminal import AsJson, ConfigFile, load_config, say, show

if TYPE_CHECKING:
    from proxy.config.values import Address

TIMEOUT = 3.0
"""Seconds; Docker waits for 5."""


class NoAnswerError(Exception):
    """Why nothing can be said about the proxy."""


def health(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say whether the running proxy can serve, as its /readyz tells.

    Exit code 0: ok or degraded (it serves, and something is amiss); 1: failing, or no answer; 2: invalid
    configuration. It asks on ops.address, and needs no token.

    \b
    Examples:
        ollama-auth-proxy health --config config.toml
        until ollama-auth-proxy health; do sleep 1; done

    Next: 'ollama-auth-proxy doctor' says why, and what to do.
    """
    address = load_config(config).ops.address
    try:
        answer = _ask(address)
    except NoAnswerError as fault:
        if as_json:
            show(json.dumps({"status": "unreachable", "reason": str(fault)}))
        say(f"error: {fault}")
        raise typer.Exit(1) from None
    show(json.dumps(answer) if as_json else _in_words(answer))
    raise typer.Exit(1 if answer["status"] == "failing" else 0)


def _ask(address: Address) -> dict[str, Any]:
    """Raises NoAnswerError."""
    from http.client import HTTPConnection, HTTPException  # half of what httpx takes to load

    if address.port == 0:
        raise NoAnswerError("ops.address has port 0, any free one, so it cannot be asked: write a port")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    connection = HTTPConnection(host, address.port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        answer = json.loads(connection.getresponse().read(1 << 20))
    except TimeoutError:
        raise NoAnswerError(
            f"no answer from {address} within {TIMEOUT:g} s: read the log of 'serve'"
        ) from None
    except OSError as fault:
        why = (fault.strerror or "unknown error").lower()
        raise NoAnswerError(f"no answer from {address} ({why}): is 'serve' running?") from None
    except (HTTPException, ValueError, RecursionError):
        answer = None
    finally:
        connection.close()
    if not isinstance(answer, dict) or answer.get("status") not in ("ok", "degraded", "failing"):
        raise NoAnswerError(f"what answers on {address} is not this proxy: write another ops.address")
    return answer


def _in_words(answer: dict[str, Any]) -> str:
    """The state, and a line for each check that is not ok."""
    checks = answer.get("checks")
    lines = [str(answer["status"])]
    for name, check in (checks if isinstance(checks, dict) else {}).items():
        if isinstance(check, dict) and check.get("status") != "ok":
            lines.append(f"{name}: {check.get('status')}, {check.get('reason', 'without a reason')}")
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
