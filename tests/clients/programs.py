"""Clients that are programs of their own: where they are, and how they get onto a PATH.

The npm packages are installed once, by exact version, into a cache folder outside of the checkout. The
`ollama` command is the one that OLLAMA_TEST_COMMAND names, else the one on the PATH. What is missing is
skipped with its reason, but fails with CI=true.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES = (
    "@anthropic-ai/claude-code@2.1.332",
    "@anthropic-ai/sdk@1.14.0",
    "@continuedev/cli@1.5.47",
    "esbuild@0.28.2",
    "ollama@0.6.4",
    "openai@7.57.0",
    "playwright-core@1.65.1",
)
CACHE = Path.home() / ".cache" / "ollama-auth-proxy-tests"
INSTALL_TIMEOUT = 300.0
RUN_TIMEOUT = 60.0


def cannot_run(reason: str) -> NoReturn:
    """Skip, or fail where everything has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def npm_packages() -> Path:
    """The folder `node_modules` with all packages."""
    folder, fault = _npm_packages()
    if fault:
        cannot_run(fault)
    return folder / "node_modules"


@cache
def _npm_packages() -> tuple[Path, str]:
    """A folder that holds them, or what is wrong; found out once."""
    folder = CACHE / f"npm-{sha256(' '.join(PACKAGES).encode()).hexdigest()[:12]}"
    if not (shutil.which("node") and shutil.which("npm")):
        return folder, "node and npm are not installed; on Debian, apt-get install nodejs npm"
    if folder.exists():
        return folder, ""
    CACHE.mkdir(parents=True, exist_ok=True)
    begun = Path(tempfile.mkdtemp(prefix="npm-begun-", dir=CACHE))
    try:
        (begun / "package.json").write_text('{"private": true}')
        options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(
            ["npm", "install", *options, *PACKAGES],
            cwd=begun,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            return folder, f"npm install fails: {done.stderr[-500:]}"
        begun.chmod(0o755)
        if not folder.exists():  # another run may have been faster
            begun.rename(folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        return folder, f"npm install fails: {error}"
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return folder, ""


def ollama_command() -> str:
    """The path of the stock `ollama` command."""
    named = os.environ.get("OLLAMA_TEST_COMMAND", "ollama")
    found = shutil.which(named)
    if found is None:
        cannot_run(f"there is no command {named!r}; name one with OLLAMA_TEST_COMMAND")
    return found


def command(name: str) -> list[str]:
    """The words that run a client."""
    match name:
        case "claude":
            return ["node", str(npm_packages() / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs")]
        case "cn":
            return ["node", str(npm_packages() / "@continuedev" / "cli" / "dist" / "cn.js")]
        case "ollama":
            return [ollama_command()]
        case "open-webui":
            return [sys.executable, "-m", "tests.clients.open_webui"]
    raise ValueError(name)


NAMES = ("claude", "cn", "ollama", "open-webui")


def put_on_path(folder: Path, name: str) -> None:
    """Make a program of this name in the folder."""
    checkout = shlex.quote(str(Path(__file__).parents[2]))
    program = folder / name
    program.write_text(f'#!/bin/sh\nexport PYTHONPATH={checkout}\nexec {shlex.join(command(name))} "$@"\n')
    program.chmod(0o755)


def run(words: list[str], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a client in its own home, with nothing of this process's environment but the PATH."""
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        words,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
