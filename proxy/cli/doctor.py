"""The command that walks through a deployment and says what is wrong with it."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import typer

from proxy.cli.terminal import AsJson, ConfigFile, say, show

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.doctor.findings import Finding


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say what is wrong with this deployment, and how to mend it.

    Looks at the configuration, the modes of files, the certificate, the ports, the store and its keys, the
    issuers of JWTs, Ollama and the ways around the proxy, and asks the smallest model for one token. Nothing
    is changed. Ask on the machine of the proxy, while it runs, as its user or as root: then most can be seen.
    What cannot be seen from here is a note, never ok.

    \b
    The exit code is that of the worst finding:
        0  nothing worse than a note
        1  a warning: it works, and somebody should see to it
        2  an error, or an invalid configuration: it does not work, or strangers get in

    \b
    Examples:
        ollama-auth-proxy doctor --config config.toml
        ollama-auth-proxy doctor || [ $? -eq 1 ]                 stop a pipeline at errors alone
        ollama-auth-proxy doctor --json | jq -r '.findings[] | select(.level == "error") | .code'

    Next: mend the errors from the top, then ask again.
    """
    from proxy.doctor.findings import document, exit_code, worst

    findings = asyncio.run(_collect(config, as_json=as_json))
    if as_json:
        show(json.dumps(document(findings), indent=2))
    level = worst(findings)
    say(f"{len(findings)} findings; the worst is: {level.name.lower()}")
    raise typer.Exit(exit_code(level))


async def _collect(config: ConfigFile, *, as_json: bool) -> list[Finding]:
    from proxy.doctor.findings import in_words

    findings = []
    async for finding in _walk(config):
        findings.append(finding)
        if not as_json:
            show(in_words(finding))
    return findings


async def _walk(config: ConfigFile) -> AsyncIterator[Finding]:
    from proxy.config import file_to_read
    from proxy.doctor.findings import note
    from proxy.doctor.walk import read, walk

    found = read(config, os.environ)
    if isinstance(found, list):
        for finding in found:
            yield finding
        yield note("not_walked", "nothing else was looked at: it needs a configuration without faults")
        return
    async for finding in walk(found, file_to_read(config, os.environ), say):
        yield finding
